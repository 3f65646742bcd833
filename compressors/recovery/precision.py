"""Which arithmetic the training uses."""

from contextlib import AbstractContextManager

import torch

from compressors.recovery.config import RecoveryConfig


def candidate_precisions(config: RecoveryConfig) -> tuple[str, ...]:
    """Return the arithmetics that are worth trying on this processor, the usual one first.

    ``auto`` adds bf16 only with AMX tiles: AVX512-BF16 alone multiplies pairs within a vector, which with the
    conversions around it takes longer than f32. Also with tiles small students were faster in f32: it has to be timed.
    """
    if config.precision != "auto":
        return (config.precision,)
    return ("f32", "bf16") if torch.cpu.get_capabilities().get("amx_bf16", False) else ("f32",)


def autocast(precision: str) -> AbstractContextManager[None]:
    """Return the context for forward passes: products in ``precision``, weights and gradients in float32."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
