"""Checkpoints of a recovery: one safetensors file, replaced atomically."""

import json
import os
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

FILE = "recovery.safetensors"


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation of the held-back part."""

    step: int
    epoch: float
    seconds: float
    """Training time so far, of all sittings."""
    loss: float
    """Mean training loss since the evaluation before."""
    score: float
    """Higher is better: see ``RecoveryResult``."""


@dataclass
class Position:
    """Where a run is, besides its tensors."""

    fingerprint: str
    """Of the config, the data and the starting weights: a checkpoint of anything else is not continued."""
    steps: int
    step: int = 0
    progress: float = 0.0
    seconds: float = 0.0
    start_score: float = 0.0
    best_score: float = 0.0
    best_step: int = 0
    evaluations: int = 0
    """How often the held-back part is evaluated, as planned at the start."""
    threads: int = 0
    """Of torch, and its arithmetic, as found fastest at the start: a resumed run goes on with them."""
    precision: str = ""
    rate: float = 1.0
    """Part of the configured learning rate that is used: less after the weights had run away from the start."""
    loss_sum: float = 0.0
    loss_count: int = 0
    curve: list[CurvePoint] = field(default_factory=list)


def save(directory: Path, position: Position, groups: dict[str, dict[str, Tensor]]) -> None:
    """Write the checkpoint so that a kill at any moment leaves the old or the new one.

    Args:
        directory: made when it is not there.
        position: where the run is.
        groups: tensors by group (``model``, ``best``, moments of the optimiser, ...) and name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{group}/{name}": tensor.detach().contiguous()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    temporary = directory / f"{FILE}.partial"
    save_file(tensors, temporary, metadata={"position": json.dumps(asdict(position))})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(directory / FILE)


def load(directory: Path, fingerprint: str) -> tuple[Position, dict[str, dict[str, Tensor]]] | None:
    """Return the checkpoint of the run with this fingerprint, or ``None`` when there is none that can be read."""
    try:
        with safe_open(directory / FILE, framework="pt") as file:
            values: dict[str, Any] = json.loads(file.metadata()["position"])
            if values["fingerprint"] != fingerprint:
                return None
            values["curve"] = [CurvePoint(**point) for point in values["curve"]]
            position = Position(**values)
            groups: dict[str, dict[str, Tensor]] = {}
            for key in file.keys():  # noqa: SIM118
                group, name = key.split("/", 1)
                groups.setdefault(group, {})[name] = torch.clone(file.get_tensor(key))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return position, groups
