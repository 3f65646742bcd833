"""A short training that knows about int8: for models that lose too much when they are merely rounded.

Weights: learned step size for each output channel (LSQ, Esser et al., arXiv 1902.08153), straight-through gradients.
Activations: the asymmetric 8-bit grid that dynamic quantisation finds at run time, for each text on its own, as it is
when the deployed model answers one request. The low-rank product in the middle of a factorised layer stays float here.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import nn
from torch.nn.utils import parametrize

from compressors.forward import round_activations
from compressors.methods.rounding import largest_value
from compressors.recovery.config import FINISH_STEPS
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.prepare import PreparedData
from compressors.recovery.recover import RecoveryResult
from compressors.recovery.recover import recover
from compressors.recovery.teacher import Teacher
from infra.errors import InvalidInputError
from paretune.artifact.encoder import CompressedEncoder
from paretune.artifact.encoder import LowRankLinear
from paretune.artifact.structure import LinearStructure


def recover_quantized(
    student: CompressedEncoder,
    teacher: Teacher,
    data: PreparedData,
    config: RecoveryConfig,
    *,
    grid_bits: int = 8,
    **options: Any,
) -> RecoveryResult:
    """Train with the int8 layers of ``student.structure`` quantised, and return weights that lie on their grid.

    Rounding the result once more (per output channel, symmetric, on a grid of ``grid_bits``) changes nothing. The start
    score is that of plain rounding, so ``improved`` says whether the finish was worth it.

    Args:
        student: trained in place; left with the returned weights.
        teacher: as for :func:`compressors.recovery.recover.recover`.
        data: as for ``recover``.
        config: see :func:`finishing`.
        grid_bits: of the weights; see :meth:`compressors.recipe.QuantizationRecipe.grid_bits`.
        options: the further options of ``recover``.

    Raises:
        InvalidInputError: no layer of the structure has 8 bits.
    """
    if not quantized_layers(student):
        raise InvalidInputError(
            "No layer of the model is to be quantised to 8 bits.", hint="Set bits to 8 in the recipe's layers."
        )
    with fake_quantization(student, grid_bits):
        result = recover(student, teacher, data, config, **options)
    return dataclasses.replace(result, state_dict=dict(student.state_dict()))


def finishing(config: RecoveryConfig, steps: int = FINISH_STEPS) -> RecoveryConfig:
    """Return ``config`` for a quantisation-aware finish: few steps, a tenth of the learning rate, no average."""
    return config.model_copy(
        update={
            "seconds": None,
            "epochs": None,
            "steps": steps,
            "learning_rate": config.learning_rate / 10,
            "average": None,
        }
    )


@contextmanager
def fake_quantization(module: CompressedEncoder, grid_bits: int = 8) -> Iterator[None]:
    """Let the int8 layers compute as they will when deployed; afterwards their weights are on the grid for good."""
    layers = quantized_layers(module)
    hooks = []
    for layer in layers:
        hooks.append(layer.register_forward_pre_hook(lambda _, inputs: (quantize_activation(inputs[0]), *inputs[1:])))
        for name in _matrices(layer):
            step = LearnedStep(getattr(layer, name).shape[0], largest_value(grid_bits))
            parametrize.register_parametrization(layer, name, step)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            for name in _matrices(layer):
                parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


def quantized_layers(module: CompressedEncoder) -> list[nn.Module]:
    """Return the linear layers that the structure wants in 8 bits, in a fixed order."""
    found = []
    for layer, structure in zip(module.layers, module.structure.layers, strict=True):
        for branch in ("attention", "feed_forward"):
            found += _with_eight_bits(getattr(layer, branch), getattr(structure, branch))
    return found + _with_eight_bits(module.head, module.structure.head)


def _with_eight_bits(module: Any, structure: Any) -> list[nn.Module]:
    if module is None or structure is None:
        return []
    fields = {name: getattr(structure, name) for name in type(structure).model_fields}
    return [
        getattr(module, name)
        for name, value in fields.items()
        if isinstance(value, LinearStructure) and value.bits == 8
    ]


def _matrices(layer: nn.Module) -> tuple[str, ...]:
    return ("left", "right") if isinstance(layer, LowRankLinear) else ("weight",)


class LearnedStep(nn.Module):
    """Rounds a weight matrix to the int8 grid of a step size that is learned for each row.

    The step is at most ``max|w| / levels`` of its row: the largest weight then sits on the end of the grid, where an
    exporter that derives the scale from the largest weight finds the same grid again.
    """

    def __init__(self, rows: int, levels: int = 127) -> None:
        super().__init__()
        self.levels = levels
        """Largest integer of the symmetric grid."""
        self.ratio = nn.Parameter(torch.ones(rows))
        """Step relative to ``max|w| / levels``, ``[rows]``."""

    def forward(self, weight: Tensor) -> Tensor:
        """[rows, columns] -> the same, on the grid."""
        largest = weight.detach().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
        ratio = self.ratio + (self.ratio.clamp(1 / self.levels, 1) - self.ratio).detach()
        step = ratio * largest / self.levels
        rounded: Tensor = _LearnedStepRounding.apply(weight, step, self.levels)  # type: ignore[no-untyped-call]
        return rounded


class _LearnedStepRounding(torch.autograd.Function):
    """``step * clamp(round(weight / step))`` with the gradients of LSQ."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, step: Tensor, levels: int) -> Tensor:
        """Weight ``[rows, columns]``, step ``[rows]``."""
        ctx.save_for_backward(weight, step)
        ctx.levels = levels
        return (weight / step[:, None]).round().clamp(-levels, levels) * step[:, None]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Straight through inside the grid; the step's gradient is scaled by ``1 / sqrt(columns * levels)``."""
        (gradient,) = gradients
        (weight, step), levels = ctx.saved_tensors, ctx.levels
        scaled = weight / step[:, None]
        inside = scaled.abs() <= levels
        slope = torch.where(inside, scaled.round() - scaled, scaled.sign() * levels)
        return gradient * inside, (gradient * slope).sum(1) / (weight.shape[1] * levels) ** 0.5, None


def quantize_activation(values: Tensor) -> Tensor:
    """Round each text's activations to 256 levels between their least and greatest (and zero), straight through.

    Args:
        values: ``[B, ...]``; every text (row of the batch) has a range of its own.
    """
    return values + (round_activations(values.detach().float()) - values).detach()
