"""Write and read the torch form of a compressed model."""

from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save_file
from torch import nn

from paretune.artifact.encoder import CompressedEncoder
from paretune.artifact.structure import Structure

STRUCTURE_FILE = "structure.json"
WEIGHTS_FILE = "model.safetensors"


class ArtifactError(ValueError):
    """The folder does not hold a complete, undamaged model."""


def load(directory: str | Path) -> nn.Module:
    """Rebuild a compressed model from a downloaded folder.

    Args:
        directory: folder with ``structure.json`` and ``model.safetensors``.

    Returns:
        The module in eval mode, on the CPU. Call it with ``input_ids``, ``attention_mask`` (and ``token_type_ids``),
        int64 ``[batch, sequence]``; it returns logits or sentence embeddings, float32.

    Raises:
        ArtifactError: a file is missing or damaged, the version is unknown, or weights and structure do not fit.
    """
    folder = Path(directory)
    try:
        structure = Structure.model_validate_json((folder / STRUCTURE_FILE).read_bytes())
        weights = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValidationError, SafetensorError) as error:
        raise ArtifactError(f"{folder} does not hold a compressed model that this version can read: {error}") from error
    with torch.device("meta"):  # no time is spent on initial values that the file overwrites
        module = CompressedEncoder(structure)
    try:
        module.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        raise ArtifactError(f"The weights in {folder} do not fit {STRUCTURE_FILE}: {error}") from error
    return module.eval()


def save(module: CompressedEncoder, directory: str | Path) -> tuple[Path, Path]:
    """Write ``structure.json`` and ``model.safetensors``; return their paths. Equal modules give equal bytes."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    structure_path, weights_path = folder / STRUCTURE_FILE, folder / WEIGHTS_FILE
    structure_path.write_text(module.structure.model_dump_json(indent=2) + "\n", encoding="utf-8")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    save_file(weights, weights_path, metadata={"format": "pt"})
    return structure_path, weights_path
