"""The files of the dense model's folder that travel along with every exported form."""

import shutil
from pathlib import Path

from compressors.export.manifest import file_sha256

COMPANIONS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
"""Configuration, tokenizer and pooling files, relative to the folder."""

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
"""Patterns of the names of the weights: one file, or an index and its shards."""


def copy_companions(model_dir: Path, directory: Path) -> None:
    """Copy those of :data:`COMPANIONS` that exist, under the same names."""
    for name in COMPANIONS:
        source = model_dir / name
        if source.is_file():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def model_digests(model_dir: Path) -> dict[str, str]:
    """sha256 of the dense model's own files, all shards of its weights included, by name."""
    weights = sorted(path.name for pattern in _WEIGHTS for path in model_dir.glob(pattern))
    names = [name for name in COMPANIONS if (model_dir / name).is_file()]
    return {name: file_sha256(model_dir / name) for name in (*weights, *names)}
