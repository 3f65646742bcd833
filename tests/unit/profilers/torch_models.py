"""A one-layer encoder in the project's torch form, with random weights."""

from pathlib import Path

import torch

from paretune.artifact import Structure
from paretune.artifact import save
from paretune.artifact.encoder import CompressedEncoder


def write_tiny_torch_artifact(directory: Path) -> None:
    square = {"inputs": 16, "outputs": 16}
    structure = Structure.model_validate(
        {
            "model_type": "bert",
            "hidden_size": 16,
            "embeddings": {"vocabulary": 100, "positions": 32, "token_types": 2, "norm_epsilon": 1e-12},
            "layers": [
                {
                    "index": 0,
                    "attention": {
                        "heads": 2,
                        "head_size": 8,
                        **dict.fromkeys(("query", "key", "value", "output"), square),
                    },
                    "attention_norm_epsilon": 1e-12,
                    "feed_forward": {
                        "activation": "gelu",
                        "up": {"inputs": 16, "outputs": 24},
                        "down": {"inputs": 24, "outputs": 16},
                    },
                    "feed_forward_norm_epsilon": 1e-12,
                }
            ],
            "head": {
                "dense": None,
                "kind": "classification",
                "activation": "tanh",
                "classifier": {"inputs": 16, "outputs": 3},
            },
            "max_sequence_length": 32,
        }
    )
    torch.manual_seed(0)
    module = CompressedEncoder(structure).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
    save(module, directory)
