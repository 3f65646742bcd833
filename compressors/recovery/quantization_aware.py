"""A short training that knows about few bits: for models that lose too much when they are merely rounded.

Weights: learned step size (LSQ, Esser et al., arXiv 1902.08153) for whatever shares a scale in the file, an output
channel or a block of it, straight-through gradients. Activations: rounded where the file rounds them, for each text on
its own, as it is when the deployed model answers one request; for calibrated grids that which dynamic quantisation
finds at run time is taken. The low-rank product in the middle of a factorised layer stays float here.
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from compressors.export.simulation import FileArithmetic
from compressors.methods.rounding import largest_value
from compressors.recipe import Recipe
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
    recipe: Recipe,
    **options: Any,
) -> RecoveryResult:
    """Train with the layers of ``student.structure`` that have few bits quantised; return weights that lie on the grid.

    It is the grid that ``recipe``'s file stores: writing the result changes nothing. The start score is that of plain
    rounding, so ``improved`` says whether the finish was worth it.

    Args:
        student: of a network ``as_written`` (:mod:`compressors.export.simulation`); trained in place, and left with the
            returned weights.
        teacher: as for :func:`compressors.recovery.recover.recover`.
        data: as for ``recover``.
        config: see :func:`finishing`.
        recipe: what the model will be written by; its layers are not looked at.
        options: the further options of ``recover``.

    Raises:
        InvalidInputError: no layer of the structure has 8 or 4 bits.
    """
    if not quantized_layers(student):
        raise InvalidInputError(
            "No layer of the model is to be quantised to 8 bits or 4.", hint="Set bits to 8 in the recipe's layers."
        )
    with fake_quantization(student, recipe):
        result = recover(student, teacher, data, config, **options)
    return dataclasses.replace(result, state_dict=dict(student.state_dict()))


def finishing(config: RecoveryConfig, steps: int = FINISH_STEPS) -> RecoveryConfig:
    """Return ``config`` for a quantisation-aware finish: few steps, a tenth of the learning rate, no average.

    In f32: bf16 is off by up to a quarter of a step of the 8-bit grid.
    """
    return config.model_copy(
        update={
            "seconds": None,
            "epochs": None,
            "steps": steps,
            "learning_rate": config.learning_rate / 10,
            "average": None,
            "precision": "f32",
        }
    )


_VALUE_BIAS = "attention.value.bias"


@contextmanager
def fake_quantization(module: CompressedEncoder, recipe: Recipe) -> Iterator[None]:
    """Let the layers of few bits compute as in ``recipe``'s file; afterwards their weights are on its grid for good."""
    layers, quantization = quantized_layers(module), recipe.quantization
    arithmetic = FileArithmetic.of(recipe, grid="text")
    hooks = []
    for name, parameter in module.named_parameters():
        if name.endswith(_VALUE_BIAS):  # the file has it behind the rounding of the context: it is not trained here
            hooks.append(parameter.register_hook(torch.zeros_like))  # type: ignore[no-untyped-call]
    for layer, bits in layers:
        rounding = arithmetic.rounding(bits)
        if rounding is not None:
            hooks.append(layer.register_forward_pre_hook(partial(_round_input, rounding)))
        for name in _matrices(layer):
            rows, columns = getattr(layer, name).shape
            levels = largest_value(quantization.grid_bits(bits))
            step = LearnedStep(rows, columns, levels, quantization.block_size(bits))
            parametrize.register_parametrization(layer, name, step)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, _ in layers:
            for name in _matrices(layer):
                parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


def quantized_layers(module: CompressedEncoder) -> list[tuple[nn.Module, int]]:
    """Return the linear layers that the structure wants in 8 or 4 bits, and in how many, in a fixed order."""
    found = []
    for layer, structure in zip(module.layers, module.structure.layers, strict=True):
        for branch in ("attention", "feed_forward"):
            found += _with_few_bits(getattr(layer, branch), getattr(structure, branch))
    return found + _with_few_bits(module.head, module.structure.head)


def _with_few_bits(module: Any, structure: Any) -> list[tuple[nn.Module, int]]:
    if module is None or structure is None:
        return []
    fields = {name: getattr(structure, name) for name in type(structure).model_fields}
    return [
        (getattr(module, name), value.bits)
        for name, value in fields.items()
        if isinstance(value, LinearStructure) and value.bits in (4, 8)
    ]


def _matrices(layer: nn.Module) -> tuple[str, ...]:
    return ("left", "right") if isinstance(layer, LowRankLinear) else ("weight",)


class LearnedStep(nn.Module):
    """Rounds a weight matrix to an integer grid, with a step size that is learned for each row or block of a row.

    The step is at most ``max|w| / levels`` of its weights: the largest of them then sits on the end of the grid, where
    an exporter that derives the scale from the largest weight finds the same grid again.
    """

    def __init__(self, rows: int, columns: int, levels: int = 127, size: int | None = None) -> None:
        super().__init__()
        self.levels = levels
        """Largest integer of the symmetric grid."""
        self.size = size or columns
        """Weights of a row that share a step; the last block of a row may have fewer."""
        self.ratio = nn.Parameter(torch.ones(rows * -(-columns // self.size)))
        """Step relative to ``max|w| / levels``, ``[rows * blocks]``."""

    def forward(self, weight: Tensor) -> Tensor:
        """[rows, columns] -> the same, on the grid."""
        rows, columns = weight.shape
        blocks = functional.pad(weight, (0, -columns % self.size)).reshape(-1, self.size)
        largest = blocks.detach().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
        ratio = self.ratio + (self.ratio.clamp(1 / self.levels, 1) - self.ratio).detach()
        step = ratio * largest / self.levels
        rounded: Tensor = _LearnedStepRounding.apply(blocks, step, self.levels)  # type: ignore[no-untyped-call]
        return rounded.reshape(rows, -1)[:, :columns]


class _LearnedStepRounding(torch.autograd.Function):
    """``step * clamp(round(weight / step))`` with the gradients of LSQ."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, step: Tensor, levels: int) -> Tensor:
        """Weight ``[blocks, size]``, step ``[blocks]``."""
        ctx.save_for_backward(weight, step)
        ctx.levels = levels
        return (weight / step[:, None]).round().clamp(-levels, levels) * step[:, None]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Straight through inside the grid; the step's gradient is scaled by ``1 / sqrt(size * levels)``."""
        (gradient,) = gradients
        (weight, step), levels = ctx.saved_tensors, ctx.levels
        scaled = weight / step[:, None]
        inside = scaled.abs() <= levels
        slope = torch.where(inside, scaled.round() - scaled, scaled.sign() * levels)
        return gradient * inside, (gradient * slope).sum(1) / (weight.shape[1] * levels) ** 0.5, None


def quantize_activation(values: Tensor, rounding: Callable[[Tensor], Tensor]) -> Tensor:
    """Round what a layer reads, ``[batch, ...]``, with straight-through gradients."""
    return values + (rounding(values.detach().float()) - values).detach()


def _round_input(rounding: Callable[[Tensor], Tensor], _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return quantize_activation(inputs[0], rounding), *inputs[1:]
