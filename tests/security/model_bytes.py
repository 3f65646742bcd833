"""Builds model folders byte by byte, valid by default, so that tests can break exactly one thing."""

import json
from typing import Any

Tensors = dict[str, tuple[str, list[int]]]

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film"]
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I8": 1, "U8": 1}


def config(**changes: Any) -> dict[str, Any]:
    """Return a valid ``config.json`` of a two-layer BERT classifier with ``changes``; ``...`` removes a key."""
    values: dict[str, Any] = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": len(VOCABULARY),
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "id2label": {"0": "bad", "1": "good"},
        "label2id": {"bad": 0, "good": 1},
    }
    values |= changes
    return {key: value for key, value in values.items() if value is not ...}


def tensors(layers: int = 2, hidden: int = 8, intermediate: int = 16, labels: int = 2) -> Tensors:
    """Return names, dtypes and shapes of the weights that belong to :func:`config`."""
    shapes: dict[str, list[int]] = {
        "bert.embeddings.word_embeddings.weight": [len(VOCABULARY), hidden],
        "bert.embeddings.position_embeddings.weight": [512, hidden],
        "bert.embeddings.token_type_embeddings.weight": [2, hidden],
        "bert.embeddings.LayerNorm.weight": [hidden],
        "bert.embeddings.LayerNorm.bias": [hidden],
        "bert.pooler.dense.weight": [hidden, hidden],
        "bert.pooler.dense.bias": [hidden],
        "classifier.weight": [labels, hidden],
        "classifier.bias": [labels],
    }
    for index in range(layers):
        layer = f"bert.encoder.layer.{index}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes[f"{layer}{name}.weight"] = [hidden, hidden]
            shapes[f"{layer}{name}.bias"] = [hidden]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{layer}{name}.weight"] = [hidden]
            shapes[f"{layer}{name}.bias"] = [hidden]
        shapes[f"{layer}intermediate.dense.weight"] = [intermediate, hidden]
        shapes[f"{layer}intermediate.dense.bias"] = [intermediate]
        shapes[f"{layer}output.dense.weight"] = [hidden, intermediate]
        shapes[f"{layer}output.dense.bias"] = [hidden]
    return {name: ("F32", shape) for name, shape in shapes.items()}


def header(entries: Tensors) -> dict[str, Any]:
    """Return the header of a safetensors file with these tensors one after another."""
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape) in entries.items():
        size = ITEM_BYTES[dtype]
        for dimension in shape:
            size *= dimension
        described[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    return described


def data_bytes(described: dict[str, Any]) -> int:
    """Number of data bytes that a header describes."""
    return max((entry["data_offsets"][-1] for name, entry in described.items() if name != "__metadata__"), default=0)


def safetensors(described: dict[str, Any] | None = None, *, extra: int = 0) -> bytes:
    """Return a file with this header and as many zero bytes of data as it needs (at most 1 MiB), plus ``extra``."""
    described = header(tensors()) if described is None else described
    text = json.dumps(described).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * min(data_bytes(described) + extra, 1 << 20)


def tokenizer() -> dict[str, Any]:
    """Return a word-level ``tokenizer.json``."""
    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    return {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }


def dump(value: Any) -> bytes:
    """JSON bytes."""
    return json.dumps(value).encode()


def model_files(**replaced: bytes) -> dict[str, bytes]:
    """Return all files of a valid model; keywords with ``__`` for ``.`` replace or add files."""
    files = {
        "config.json": dump(config()),
        "model.safetensors": safetensors(),
        "tokenizer.json": dump(tokenizer()),
        "tokenizer_config.json": dump({"tokenizer_class": "BertTokenizer", "model_max_length": 512}),
    }
    return files | {name.replace("__", "."): content for name, content in replaced.items()}
