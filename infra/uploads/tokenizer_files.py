"""Tokenizer and sentence-embedding files: plain JSON or text, no references to other files or code."""

from typing import Any

from infra.errors import InvalidModelError
from infra.uploads import json_file
from infra.uploads.config_json import is_tokenizer_class
from infra.uploads.filenames import BPE_MERGES
from infra.uploads.filenames import BPE_VOCABULARY
from infra.uploads.filenames import MODULES
from infra.uploads.filenames import POOLING
from infra.uploads.filenames import TOKENIZER
from infra.uploads.filenames import WORDPIECE_VOCABULARY

MAX_TOKENS = 4_000_000
MAX_LINE = 4096

_TOKENIZER_MODELS = frozenset({"WordPiece", "BPE", "Unigram", "WordLevel"})
_FILE_KEYS = ("tokenizer_file", "vocab_file", "merges_file", "spm_file", "fast_tokenizer_files", "extra_files")
_CODE_KEYS = ("auto_map", "trust_remote_code", "chat_template", "custom_code", "code_revision")
_SENTENCE_MODULES = {
    "Transformer": "",
    "Pooling": "1_Pooling",
    "Normalize": "2_Normalize",
}


def check_text_file(name: str, data: bytes) -> None:
    """Check one tokenizer or sentence-embedding file by its name.

    Raises:
        InvalidModelError: The file is damaged, or refers to code or to files outside the folder.
    """
    if name in {WORDPIECE_VOCABULARY, BPE_MERGES}:
        _check_lines(name, data)
        return
    value = json_file.parse(name, data, InvalidModelError)
    if name == MODULES:
        _check_modules(value)
        return
    if not isinstance(value, dict):
        raise InvalidModelError(f"{name} is not a JSON object.", hint=f"Send the original {name}.")
    _check_references(name, value)
    if name == TOKENIZER:
        _check_tokenizer(value)
    elif name == BPE_VOCABULARY and not all(isinstance(v, int) and 0 <= v < MAX_TOKENS for v in value.values()):
        raise InvalidModelError(f"{name} does not map tokens to numbers.", hint=f"Send the original {name}.")
    elif name == POOLING:
        _check_pooling(value)


def _check_lines(name: str, data: bytes) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise InvalidModelError(
            f"{name} is not UTF-8 text (byte {problem.start}).", hint=f"Send the original {name}."
        ) from None
    lines = text.split("\n")
    if "\0" in text or len(lines) > MAX_TOKENS or any(len(line) > MAX_LINE for line in lines):
        raise InvalidModelError(f"{name} is not a vocabulary with one entry a line.", hint=f"Send the original {name}.")


def _check_references(name: str, value: dict[str, Any]) -> None:
    for key in _CODE_KEYS:
        if value.get(key):
            raise InvalidModelError(
                f"{name} has the key {key!r}, which can bring code into the model.",
                hint=f"Remove {key!r} from {name}.",
                errors=[{"field": f"{name}: {key}", "message": "is never accepted"}],
            )
    for key in _FILE_KEYS:
        if value.get(key) is not None:
            raise InvalidModelError(
                f"{name} refers to another file with the key {key!r}.",
                hint=f"Remove {key!r} from {name}: the files are found by their standard names.",
                errors=[{"field": f"{name}: {key}", "message": "is never accepted"}],
            )
    tokenizer_class = value.get("tokenizer_class")
    if tokenizer_class is not None and not is_tokenizer_class(tokenizer_class):
        raise InvalidModelError(
            f"{name} names the tokenizer class {str(tokenizer_class)[:80]!r}, which is not supported.",
            hint="Save the tokenizer of a BERT, RoBERTa, XLM-RoBERTa or DistilBERT model with save_pretrained().",
        )


def _check_tokenizer(value: dict[str, Any]) -> None:
    model = value.get("model")
    if not isinstance(model, dict) or model.get("type", "WordPiece") not in _TOKENIZER_MODELS:
        raise InvalidModelError(
            f"{TOKENIZER} has no tokenizer model of a known type.",
            hint="Save the tokenizer anew with save_pretrained().",
        )
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict | list) or not 1 <= len(vocabulary) <= MAX_TOKENS:
        raise InvalidModelError(
            f"{TOKENIZER} has no usable vocabulary.", hint="Save the tokenizer anew with save_pretrained()."
        )


def _check_pooling(value: dict[str, Any]) -> None:
    chosen = [key for key, on in value.items() if key.startswith("pooling_mode_") and on]
    supported = {"pooling_mode_cls_token", "pooling_mode_mean_tokens"}
    mode = value.get("pooling_mode")
    if mode is not None and mode not in {"cls", "mean"}:
        chosen.append(str(mode))
    if len(chosen) > 1 or not set(chosen) <= supported:
        raise InvalidModelError(
            f"{POOLING} asks for {', '.join(chosen)[:200]}.",
            hint="Supported: the mean over tokens, or the first token.",
        )


def _check_modules(value: Any) -> None:
    if not isinstance(value, list) or not 1 <= len(value) <= 10 or not all(isinstance(item, dict) for item in value):
        raise InvalidModelError(f"{MODULES} is not a list of modules.", hint=f"Send the original {MODULES}.")
    for item in value:
        kind, path = str(item.get("type", "")), item.get("path")
        package, _, name = kind.rpartition(".")
        if not f"{package}.".startswith("sentence_transformers.") or _SENTENCE_MODULES.get(name) != path:
            raise InvalidModelError(
                f"{MODULES} lists the module {kind[:80]!r} at {str(path)[:80]!r}, which is not supported.",
                hint="Supported: Transformer, then Pooling in 1_Pooling, then optionally Normalize.",
            )
