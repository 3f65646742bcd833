"""Turn texts into model inputs with the model's own ``tokenizer.json``."""

import json
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidModelError
from profilers.quality.examples import Examples

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class EncodedTexts:
    """Token ids of different lengths, without padding.

    Attributes:
        input_ids: one int64 ``[tokens]`` for each text.
        token_type_ids: the same shapes.
        pad_id: the padding token.
    """

    input_ids: tuple[Ids, ...]
    token_type_ids: tuple[Ids, ...]
    pad_id: int

    def __len__(self) -> int:
        return len(self.input_ids)

    def select(self, indices: NDArray[np.int64]) -> "EncodedTexts":
        """Return the texts at these positions."""
        return EncodedTexts(
            tuple(self.input_ids[i] for i in indices), tuple(self.token_type_ids[i] for i in indices), self.pad_id
        )

    def truncated(self, length: int) -> "EncodedTexts":
        """Cut texts to ``length`` tokens and keep the last token (the separator) of those that are cut."""
        return EncodedTexts(
            tuple(_cut(ids, length) for ids in self.input_ids),
            tuple(_cut(ids, length) for ids in self.token_type_ids),
            self.pad_id,
        )

    def batch(self, indices: Sequence[int], length: int | None = None) -> dict[str, Ids]:
        """Stack texts, padded on the right.

        Args:
            indices: Which texts.
            length: Tokens in each row; default: the longest text of the batch. Longer texts are cut.

        Returns:
            ``input_ids``, ``attention_mask``, ``token_type_ids``, each int64 ``[len(indices), length]``.
        """
        rows = [self.input_ids[i] for i in indices]
        types = [self.token_type_ids[i] for i in indices]
        width = length if length is not None else max(len(row) for row in rows)
        shape = (len(rows), width)
        feeds = {
            "input_ids": np.full(shape, self.pad_id, dtype=np.int64),
            "attention_mask": np.zeros(shape, dtype=np.int64),
            "token_type_ids": np.zeros(shape, dtype=np.int64),
        }
        for number, (row, kinds) in enumerate(zip(rows, types, strict=True)):
            short = _cut(row, width)
            feeds["input_ids"][number, : len(short)] = short
            feeds["attention_mask"][number, : len(short)] = 1
            feeds["token_type_ids"][number, : len(short)] = _cut(kinds, width)
        return feeds

    def batches(self, size: int, length: int) -> Iterator[tuple[Ids, dict[str, Ids]]]:
        """Yield all texts in batches of exactly ``[size, length]``, with the positions of the real rows.

        The last batch is filled up by repeating texts: a deployed model of fixed shape is fed the same way.
        """
        for start in range(0, len(self), size):
            real = np.arange(start, min(start + size, len(self)), dtype=np.int64)
            filled = np.resize(real, size)
            yield real, self.batch([int(i) for i in filled], length)


class TextEncoder:
    """A tokenizer.

    Args:
        directory: Model folder with ``tokenizer.json`` (and ``config.json`` for the padding token, if it says so).
        max_length: Longest text in tokens, special ones included; longer texts are cut.

    Raises:
        InvalidModelError: There is no usable ``tokenizer.json``.
    """

    def __init__(self, directory: Path, max_length: int) -> None:
        from tokenizers import Tokenizer

        path = directory / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for everything
            raise InvalidModelError(
                f"The tokenizer cannot be read from {path.name}: {error}.",
                hint="Save the tokenizer in its fast form: AutoTokenizer.from_pretrained(...).save_pretrained(...).",
            ) from error
        self.pad_id = self._padding(directory)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)

    def encode(self, examples: Examples) -> EncodedTexts:
        """Encode all texts, or pairs of texts."""
        inputs: list[Any] = list(examples.texts)
        if examples.pairs is not None:
            inputs = list(zip(examples.texts, examples.pairs, strict=True))
        encodings = self._tokenizer.encode_batch(inputs)
        return EncodedTexts(
            input_ids=tuple(np.array(encoding.ids, dtype=np.int64) for encoding in encodings),
            token_type_ids=tuple(np.array(encoding.type_ids, dtype=np.int64) for encoding in encodings),
            pad_id=self.pad_id,
        )

    def _padding(self, directory: Path) -> int:
        padding = self._tokenizer.padding
        if padding:
            return int(padding["pad_id"])
        config = directory / "config.json"
        if config.exists():
            pad_id = json.loads(config.read_text(encoding="utf-8")).get("pad_token_id")
            if isinstance(pad_id, int):
                return pad_id
        known = (self._tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
        return next((token for token in known if token is not None), 0)


def _cut(ids: Ids, length: int) -> Ids:
    return ids if len(ids) <= length else np.concatenate([ids[: length - 1], ids[-1:]])
