"""``config.json``: the supported encoders, plain values, bounded sizes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra.errors import InvalidModelError
from infra.uploads import json_file
from infra.uploads.config_keys import CODE_KEYS
from infra.uploads.config_keys import KNOWN_KEYS

JsonObject = dict[str, Any]

ARCHITECTURE_PREFIX = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "distilbert": "DistilBert"}
"""Supported ``model_type`` and how the class names of the family begin."""

ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh", "relu")
DTYPES = ("float32", "float16", "bfloat16", "torch.float32", "torch.float16", "torch.bfloat16")
MAX_LABELS = 10_000
MAX_STRING = 4096

_BOUNDS: dict[str, tuple[int, int]] = {
    "layers": (1, 128),
    "hidden_size": (1, 16_384),
    "heads": (1, 256),
    "intermediate_size": (1, 131_072),
    "vocabulary_size": (1, 2_000_000),
    "max_position_embeddings": (1, 131_072),
    "token_types": (0, 64),
}
_NAMES = {
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "vocabulary_size": "vocab_size",
    "max_position_embeddings": "max_position_embeddings",
    "token_types": "type_vocab_size",
}
_DISTILBERT_NAMES = {"layers": "n_layers", "hidden_size": "dim", "heads": "n_heads", "intermediate_size": "hidden_dim"}
_LABEL_MAPS = ("id2label", "label2id")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "is_decoder": (None, False),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "position_embedding_type": (None, "absolute"),
    "pruned_heads": (None, {}),
    "attn_implementation": (None, "eager", "sdpa"),
    "hidden_act": (None, *ACTIVATIONS),
    "activation": (None, *ACTIVATIONS),
    "dtype": (None, *DTYPES),
    "torch_dtype": (None, *DTYPES),
    "problem_type": (None, "regression", "single_label_classification", "multi_label_classification"),
}
"""Keys with few acceptable values; ``None`` stands for a key that is not there."""


@dataclass(frozen=True)
class ConfigFacts:
    """What a checked ``config.json`` says."""

    model_type: str
    architecture: str | None
    """Class name such as ``BertForSequenceClassification``; ``None`` where the file does not say."""
    layers: int
    hidden_size: int
    heads: int
    intermediate_size: int
    vocabulary_size: int
    max_position_embeddings: int
    token_types: int
    max_sequence_length: int
    """Tokens that a text may have; RoBERTa's positions begin after the padding index."""
    labels: tuple[str, ...]
    """Names of the classes in output order; two unnamed ones where the file says nothing."""
    problem_type: str | None


def check_config(data: bytes) -> ConfigFacts:
    """Parse and check ``config.json``.

    Raises:
        InvalidModelError: With every offending key in ``errors``.
    """
    config = json_file.parse_object("config.json", data, InvalidModelError)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURE_PREFIX:
        given = f"says model_type {model_type!r:.80}" if model_type else "does not say which model_type it describes"
        raise InvalidModelError(
            f"config.json {given}, which is not supported.",
            hint=f"Supported: {', '.join(ARCHITECTURE_PREFIX)}.",
            errors=[{"field": "model_type", "message": "not a supported architecture"}],
        )
    problems = [*_key_problems(config), *_value_problems(config, model_type)]
    sizes = _sizes(config, model_type, problems)
    labels = _labels(config, problems)
    architecture = _architecture(config, model_type, problems)
    if problems:
        first = problems[0]
        raise InvalidModelError(
            f"config.json is refused: {first['field']} {first['message']}.",
            hint="Change or remove the keys listed under errors; see what the original model's config.json says.",
            errors=problems,
        )
    return ConfigFacts(
        model_type=model_type,
        architecture=architecture,
        max_sequence_length=_max_sequence_length(config, model_type, sizes),
        labels=labels,
        problem_type=config.get("problem_type"),
        **sizes,
    )


def _problem(field: str, message: str) -> JsonObject:
    return {"field": field[:200], "message": message}


def _strings(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for item in value[:MAX_LABELS]:
            yield from _strings(path, item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(f"{path}.{key}", item)


def _nested_keys(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for item in value:
            yield from _nested_keys(path, item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{path}.{key}", key
            yield from _nested_keys(f"{path}.{key}", item)


def _key_problems(config: JsonObject) -> Iterator[JsonObject]:
    for key, value in config.items():
        if key in CODE_KEYS:
            yield _problem(key, "can bring code or another weight format into the model and is never accepted")
        elif key.startswith("_") and key != "_name_or_path":
            yield _problem(key, "is a private setting of transformers and is never accepted: remove it")
        elif key not in KNOWN_KEYS and key != "_name_or_path":
            yield _problem(key, "is not a setting of this architecture: remove it")
        if key in _LABEL_MAPS:
            continue  # their keys are the user's own names
        for path, nested in _nested_keys(key, value):
            if nested in CODE_KEYS or nested.startswith("_"):
                yield _problem(path, "is never accepted: remove it")


def _value_problems(config: JsonObject, model_type: str) -> Iterator[JsonObject]:
    for path, text in _strings("", config):
        field = path.lstrip(".")
        if len(text) > MAX_STRING or not text.isprintable():
            yield _problem(field, "is too long or has unprintable characters")
        elif "://" in text and field.partition(".")[0] not in _LABEL_MAPS:
            yield _problem(field, "holds a URL")
    for key, allowed in _CHOICES.items():
        if config.get(key) not in allowed:
            choices = ", ".join(sorted(repr(choice) for choice in allowed if choice is not None))
            yield _problem(key, f"must be one of {choices}" if choices else "must be left out")
    if config.get("sinusoidal_pos_embds") and model_type != "distilbert":
        yield _problem("sinusoidal_pos_embds", "must be false")
    epsilon = config.get("layer_norm_eps", 1e-12)
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        yield _problem("layer_norm_eps", "must be a number between 0 and 1")
    tokenizer_class = config.get("tokenizer_class")
    if tokenizer_class is not None and not is_tokenizer_class(tokenizer_class):
        yield _problem("tokenizer_class", "is not a tokenizer of the supported architectures")


def is_tokenizer_class(name: Any) -> bool:
    """Whether ``name`` is a tokenizer class of transformers for one of the supported families."""
    if not isinstance(name, str):
        return False
    families = (*ARCHITECTURE_PREFIX.values(), "MPNet", "PreTrained")
    return name == "TokenizersBackend" or name.removesuffix("Fast") in {f"{family}Tokenizer" for family in families}


def _sizes(config: JsonObject, model_type: str, problems: list[JsonObject]) -> dict[str, int]:
    names = _NAMES | _DISTILBERT_NAMES if model_type == "distilbert" else _NAMES
    sizes: dict[str, int] = {}
    for size, key in names.items():
        low, high = _BOUNDS[size]
        default = 2 if size == "token_types" and model_type != "distilbert" else 0 if size == "token_types" else None
        value = config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            problems.append(_problem(key, f"must be a whole number from {low} to {high}"))
        else:
            sizes[size] = value
    if {"hidden_size", "heads"} <= sizes.keys() and sizes["hidden_size"] % sizes["heads"]:
        problems.append(_problem(names["hidden_size"], "must be a multiple of the number of attention heads"))
    return sizes


def _max_sequence_length(config: JsonObject, model_type: str, sizes: dict[str, int]) -> int:
    padding = config.get("pad_token_id", 1)
    reserved = padding + 1 if model_type in {"roberta", "xlm-roberta"} and isinstance(padding, int) else 0
    return max(1, sizes["max_position_embeddings"] - reserved)


def _labels(config: JsonObject, problems: list[JsonObject]) -> tuple[str, ...]:
    names = config.get("id2label")
    if names is None:
        count = config.get("num_labels", 2)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_LABELS:
            problems.append(_problem("num_labels", f"must be a whole number from 1 to {MAX_LABELS}"))
            return ()
        return tuple(f"LABEL_{index}" for index in range(count))
    if not isinstance(names, dict) or not 1 <= len(names) <= MAX_LABELS:
        problems.append(_problem("id2label", f"must be an object with 1 to {MAX_LABELS} entries"))
        return ()
    if not all(isinstance(label, str) for label in names.values()):
        problems.append(_problem("id2label", "must map to strings"))
        return ()
    if set(names) != {str(index) for index in range(len(names))}:
        problems.append(_problem("id2label", "must have the keys 0, 1, 2, ... without a gap"))
        return ()
    back = config.get("label2id")
    if back is not None and not (
        isinstance(back, dict) and all(isinstance(v, int | str) and not isinstance(v, bool) for v in back.values())
    ):
        problems.append(_problem("label2id", "must map to whole numbers"))
    return tuple(names[str(index)] for index in range(len(names)))


def _architecture(config: JsonObject, model_type: str, problems: list[JsonObject]) -> str | None:
    names = config.get("architectures")
    if names is None or names == []:
        return None
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        problems.append(_problem("architectures", "must be a list with one class name"))
        return None
    rest = names[0].removeprefix(ARCHITECTURE_PREFIX[model_type])
    if rest == names[0] or not (rest == "Model" or (rest.startswith("For") and rest.isalnum() and len(rest) < 60)):
        problems.append(_problem("architectures", f"does not fit the model_type {model_type}"))
        return None
    return names[0]
