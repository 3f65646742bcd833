"""A whole model folder: complete, consistent, and what it is."""

import re
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from typing import Any
from typing import BinaryIO

from infra.errors import InvalidModelError
from infra.uploads import json_file
from infra.uploads.config_json import ConfigFacts
from infra.uploads.config_json import check_config
from infra.uploads.filenames import CONFIG
from infra.uploads.filenames import CONVERT_HINT
from infra.uploads.filenames import IGNORED
from infra.uploads.filenames import SINGLE_WEIGHTS
from infra.uploads.filenames import TOKENIZER
from infra.uploads.filenames import WEIGHTS_INDEX
from infra.uploads.filenames import check_name
from infra.uploads.filenames import is_weights
from infra.uploads.filenames import shard_position
from infra.uploads.filenames import size_limit
from infra.uploads.magic import check_magic
from infra.uploads.safetensors_header import TensorInfo
from infra.uploads.safetensors_header import read_header
from infra.uploads.tokenizer_files import check_text_file

JsonObject = dict[str, Any]

_LAYER = re.compile(r"(?:^|\.)(?:encoder|transformer)\.layer\.(\d+)\.")
_WORD_EMBEDDINGS = re.compile(r"(?:^|\.)embeddings\.word_embeddings\.weight$")
_CLASSIFIER = frozenset({"classifier.weight", "classifier.out_proj.weight"})
_FLOATS = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True)
class FileSource:
    """A stored file: its size in bytes, and a function that opens it for reading."""

    size: int
    open: Callable[[], BinaryIO]


@dataclass(frozen=True)
class ModelFacts:
    """What a verified model folder is."""

    config: ConfigFacts
    parameters: int
    bytes: int
    tasks: tuple[str, ...]
    """Tasks that the model can be compressed for: ``embedding``, ``sequence-classification``."""

    def to_json(self) -> JsonObject:
        """Return the form that is stored in ``model.facts``."""
        config = asdict(self.config) | {"labels": list(self.config.labels)}
        return config | {"parameters": self.parameters, "bytes": self.bytes, "tasks": list(self.tasks)}


def verify_file(name: str, source: FileSource, weights_limit: int) -> None:
    """Check one file as soon as it has arrived, so that a bad one is refused before the next is sent.

    Raises:
        InvalidModelError: The name, size or content is refused.
    """
    if name in IGNORED:
        return
    check_name(name)
    limit = size_limit(name, weights_limit)
    if source.size > limit:
        raise InvalidModelError(
            f"{name} has {source.size} bytes; at most {limit}.", hint="Check that it is the right file."
        )
    with source.open() as stream:
        if is_weights(name):
            read_header(name, stream, source.size)
            return
        data = stream.read(limit + 1)
    check_magic(name, data[:512])
    if name == CONFIG:
        check_config(data)
    else:
        check_text_file(name, data)


def verify_folder(files: Mapping[str, FileSource], weights_limit: int) -> ModelFacts:
    """Check all files of a model, and that they belong together.

    Args:
        files: Every file by its name.
        weights_limit: Largest accepted weights file in bytes.

    Returns:
        What the model is.

    Raises:
        InvalidModelError: A file is missing, refused, or contradicts another.
    """
    kept = {name: source for name, source in files.items() if name not in IGNORED}
    for name, source in kept.items():
        verify_file(name, source, weights_limit)
    _check_complete(kept)
    with kept[CONFIG].open() as stream:
        config = check_config(stream.read())
    tensors = _all_tensors(kept)
    tasks = _check_against_config(tensors, config)
    return ModelFacts(
        config=config,
        parameters=sum(info.elements for info in tensors.values() if info.dtype in _FLOATS),
        bytes=sum(source.size for name, source in kept.items() if is_weights(name)),
        tasks=tasks,
    )


def _check_complete(files: Mapping[str, FileSource]) -> None:
    if CONFIG not in files:
        raise InvalidModelError(
            "The model has no config.json.", hint="Upload config.json, then complete the model again."
        )
    if not any(map(is_weights, files)):
        raise InvalidModelError(f"The model has no weights ({SINGLE_WEIGHTS}).", hint=CONVERT_HINT)
    shards = sorted(position for name in files if (position := shard_position(name)))
    if shards and SINGLE_WEIGHTS in files:
        raise InvalidModelError(
            f"The model has both {SINGLE_WEIGHTS} and shards.", hint="Delete the model and upload one of the two forms."
        )
    if shards and shards != [(index, shards[0][1]) for index in range(1, shards[0][1] + 1)]:
        raise InvalidModelError(
            "Shards of the weights are missing.", hint="Upload every model-…-of-….safetensors file."
        )
    if TOKENIZER not in files:
        raise InvalidModelError(
            f"The model has no {TOKENIZER}.",
            hint="Upload the fast form (made by AutoTokenizer.from_pretrained(folder).save_pretrained(folder)).",
        )


def _all_tensors(files: Mapping[str, FileSource]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    location: dict[str, str] = {}
    for name in sorted(filter(is_weights, files)):
        with files[name].open() as stream:
            header = read_header(name, stream, files[name].size)
        repeated = header.keys() & tensors.keys()
        if repeated:
            raise InvalidModelError(
                f"The tensor {min(repeated)[:80]!r} is in {location[min(repeated)]} and in {name}.",
                hint="Save the model again with save_pretrained().",
            )
        tensors |= header
        location |= dict.fromkeys(header, name)
    if WEIGHTS_INDEX in files:
        _check_index(files[WEIGHTS_INDEX], location)
    return tensors


def _check_index(source: FileSource, location: dict[str, str]) -> None:
    with source.open() as stream:
        index = json_file.parse_object(WEIGHTS_INDEX, stream.read(), InvalidModelError)
    if index.get("weight_map") != location:
        raise InvalidModelError(
            f"{WEIGHTS_INDEX} does not describe the shards that were uploaded.",
            hint="Upload the index and the shards of the same save_pretrained().",
        )


def _check_against_config(tensors: Mapping[str, TensorInfo], config: ConfigFacts) -> tuple[str, ...]:
    hint = "config.json and the weights must come from the same model."
    words = [info for name, info in tensors.items() if _WORD_EMBEDDINGS.search(name)]
    if len(words) != 1 or words[0].shape != (config.vocabulary_size, config.hidden_size):
        found = f"has the shape {list(words[0].shape)}" if words else "is missing"
        raise InvalidModelError(
            f"embeddings.word_embeddings.weight {found}; "
            f"config.json says [{config.vocabulary_size}, {config.hidden_size}].",
            hint=hint,
        )
    layers = {int(match[1]) for name in tensors if (match := _LAYER.search(name))}
    if layers != set(range(config.layers)):
        raise InvalidModelError(
            f"The weights have {len(layers)} encoder layers; config.json says {config.layers}.", hint=hint
        )
    for name, info in tensors.items():
        if info.dtype not in _FLOATS and not name.endswith(("position_ids", "token_type_ids")):
            raise InvalidModelError(
                f"The tensor {name[:80]!r} is {info.dtype}; quantised weights cannot be compressed further.",
                hint="Upload the model in float32, float16 or bfloat16.",
            )
    classifier = [info for name, info in tensors.items() if name in _CLASSIFIER]
    if not classifier:
        return ("embedding",)
    outputs = classifier[0].shape[0] if classifier[0].shape else 0
    if outputs != len(config.labels):
        raise InvalidModelError(
            f"The classifier has {outputs} outputs; config.json names {len(config.labels)} labels.", hint=hint
        )
    if config.problem_type in {"regression", "multi_label_classification"} or outputs == 1:
        return ("embedding",)
    return ("sequence-classification", "embedding")
