"""Which files a model folder may consist of; everything else is refused by name."""

import re

from infra.errors import InvalidModelError

CONFIG = "config.json"
SINGLE_WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
WORDPIECE_VOCABULARY = "vocab.txt"
BPE_VOCABULARY = "vocab.json"
BPE_MERGES = "merges.txt"
POOLING = "1_Pooling/config.json"
MODULES = "modules.json"

_MIB = 1 << 20

SIZE_LIMITS: dict[str, int] = {
    CONFIG: _MIB,
    TOKENIZER: 32 * _MIB,
    "tokenizer_config.json": 4 * _MIB,
    "special_tokens_map.json": _MIB,
    "added_tokens.json": 4 * _MIB,
    WORDPIECE_VOCABULARY: 32 * _MIB,
    BPE_VOCABULARY: 32 * _MIB,
    BPE_MERGES: 32 * _MIB,
    MODULES: _MIB,
    "sentence_bert_config.json": _MIB,
    "config_sentence_transformers.json": _MIB,
    POOLING: _MIB,
    "generation_config.json": _MIB,
    WEIGHTS_INDEX: 8 * _MIB,
}
"""Names that are kept, and the largest plausible size of each in bytes (weights have the operator's limit)."""

IGNORED = frozenset({"README.md", ".gitattributes", "LICENSE", "LICENSE.txt", "data_config.json", "train_script.py"})
"""Commonly found beside a model and not needed: a client leaves them out, and sending one is not an error."""

_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_OTHER_FRAMEWORK_SUFFIXES = (".h5", ".msgpack", ".tflite", ".pb", ".gguf", ".ot", ".onnx")
CONVERT_HINT = (
    "Convert the weights once, where you trust them: "
    "AutoModel.from_pretrained(folder).save_pretrained(new_folder, safe_serialization=True), "
    "and upload the new folder."
)


def is_weights(name: str) -> bool:
    """Whether ``name`` is the weights file or one shard of it."""
    return name == SINGLE_WEIGHTS or shard_position(name) is not None


def shard_position(name: str) -> tuple[int, int] | None:
    """Return (shard, number of shards) for ``model-0000x-of-0000y.safetensors``; ``None`` for any other name."""
    match = _SHARD.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def size_limit(name: str, weights_limit: int) -> int:
    """Largest accepted size of the file in bytes; ``weights_limit`` is the operator's limit for weights."""
    return weights_limit if is_weights(name) else min(SIZE_LIMITS[name], weights_limit)


def check_name(name: str) -> None:
    """Refuse every name that is not on the list.

    Raises:
        InvalidModelError: With the reason for this kind of file, and what to send instead.
    """
    if name in SIZE_LIMITS or is_weights(name):
        return
    lowered = name.lower()
    shown = repr(name[:100])
    if lowered.endswith(_PICKLE_SUFFIXES):
        raise InvalidModelError(f"{shown} is a pickle format, which can run code when it is opened.", hint=CONVERT_HINT)
    if lowered.endswith(_ARCHIVE_SUFFIXES):
        raise InvalidModelError(f"{shown} is an archive.", hint="Upload the files of the model folder one by one.")
    if lowered.endswith(_OTHER_FRAMEWORK_SUFFIXES):
        raise InvalidModelError(f"{shown} holds weights in a format that is not supported.", hint=CONVERT_HINT)
    if lowered.endswith((".py", ".pyc", ".so", ".dll", ".dylib", ".sh")):
        raise InvalidModelError(
            f"{shown} is code; models that bring their own code are not supported.",
            hint="Use a model whose architecture is part of transformers: BERT, RoBERTa, XLM-RoBERTa or DistilBERT.",
        )
    if lowered.endswith(".safetensors"):
        raise InvalidModelError(
            f"{shown} is not a name under which transformers saves weights.",
            hint=f"Name it {SINGLE_WEIGHTS}, or save the model anew with save_pretrained().",
        )
    raise InvalidModelError(
        f"{shown} is not a file of a model folder that is used here.",
        hint="Leave it out. Accepted: " + ", ".join([SINGLE_WEIGHTS, *sorted(SIZE_LIMITS)]) + ".",
    )
