"""What a user of plain PyTorch could have had in one line."""

import inspect
from pathlib import Path

import torch

from compressors.anatomy import load_reference_model
from infra.errors import InvalidInputError

DTYPES = {"fp32": torch.float32, "torch_bf16": torch.bfloat16, "torch_fp16": torch.float16}


def build_torch_baseline(name: str, model_dir: Path, task: str, directory: Path) -> Path:
    """Write the library's own model as a ``.pt2`` file, batch and sequence dynamic; return its path.

    Args:
        name: ``fp32``: as it is. ``torch_bf16``, ``torch_fp16``: after ``model.to(dtype)``.
        model_dir: Hugging Face folder.
        task: ``sequence-classification`` | ``embedding``.
        directory: Where the file is written; it appears only when it is complete.

    Raises:
        InvalidInputError: The name is unknown.
    """
    if name not in DTYPES:
        raise InvalidInputError(f"There is no baseline {name!r} in torch.", hint=f"Baselines: {', '.join(DTYPES)}.")
    module = load_reference_model(model_dir, task).to(DTYPES[name])
    inputs = inspect.signature(module.forward).parameters
    ids = torch.arange(2 * 8).reshape(2, 8) % 4 + 1
    example = (ids, torch.ones_like(ids), torch.zeros_like(ids))[: len(inputs)]
    dynamic = torch.export.Dim.DYNAMIC
    shapes = tuple({0: dynamic, 1: dynamic} for _ in example)
    with torch.no_grad():
        program = torch.export.export(module, example, dynamic_shapes=shapes)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.pt2"
    partial = directory / f"partial.{name}.pt2"
    torch.export.save(program, partial)
    partial.rename(path)
    return path
