"""Which arithmetic the training uses."""

from contextlib import AbstractContextManager

import torch

from compressors.recovery.config import RecoveryConfig

BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
"""Instruction sets that multiply bf16, as torch names them."""


def candidate_precisions(config: RecoveryConfig) -> tuple[str, ...]:
    """Return the arithmetics that are worth trying on this processor, the usual one first.

    ``auto`` adds bf16 wherever the processor multiplies it. That says little about which is faster: small students were
    faster in f32 even with AMX tiles, and what AVX512-BF16 without tiles is worth depends on the make of the processor.
    It has to be timed.
    """
    if config.precision != "auto":
        return (config.precision,)
    found = torch.cpu.get_capabilities()
    return ("f32", "bf16") if any(found.get(name, False) for name in BF16_INSTRUCTIONS) else ("f32",)


def autocast(precision: str) -> AbstractContextManager[None]:
    """Return the context for forward passes: products in ``precision``, weights and gradients in float32."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
