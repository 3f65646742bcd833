"""From texts to token ids, with the model's own tokenizer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from infra.errors import InvalidModelError
from profilers.quality.examples import Examples

Feeds = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples at their own lengths.

    Attributes:
        ids: Token ids of each example, int64 ``[tokens]``.
        types: Token types of each example, int64 ``[tokens]``.
        pad_id: Id that padding has.
    """

    ids: list[NDArray[np.int64]]
    types: list[NDArray[np.int64]]
    pad_id: int

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: list[int], length: int | None = None) -> Feeds:
        """Return model inputs ``[len(indices), length]``, padded on the right; default: the longest example."""
        width = length or max(len(self.ids[index]) for index in indices)
        shape = (len(indices), width)
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, index in enumerate(indices):
            count = min(width, len(self.ids[index]))
            ids[row, :count] = self.ids[index][:count]
            types[row, :count] = self.types[index][:count]
            mask[row, :count] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def load_tokenizer(path: Path, length: int) -> Tokenizer:
    """Load ``tokenizer.json``; texts are truncated to ``length`` tokens and not padded.

    Raises:
        InvalidModelError: The file is missing or damaged.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for everything
        raise InvalidModelError(
            f"The tokenizer cannot be read: {error}.",
            hint="Upload the model's tokenizer.json; AutoTokenizer.from_pretrained(...).save_pretrained() writes it.",
        ) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return tokenizer


def encode(tokenizer: Tokenizer, examples: Examples, pad_id: int) -> Encoded:
    """Tokenise examples."""
    second = examples.second_texts
    texts = examples.texts if second is None else list(zip(examples.texts, second, strict=True))
    encodings = tokenizer.encode_batch(texts)
    return Encoded(
        ids=[np.array(encoding.ids, dtype=np.int64) for encoding in encodings],
        types=[np.array(encoding.type_ids, dtype=np.int64) for encoding in encodings],
        pad_id=pad_id,
    )
