"""Which arithmetic the training uses."""

from contextlib import AbstractContextManager

import torch

from compressors.recovery.config import RecoveryConfig


def resolve_precision(config: RecoveryConfig) -> str:
    """Return ``f32`` or ``bf16`` for this processor.

    ``auto`` takes bf16 only with AMX tiles. AVX512-BF16 alone multiplies pairs within a vector; there torch's bf16
    products and the conversions around them take longer than f32 (see ``docs/guides/recovery.md``).
    """
    if config.precision != "auto":
        return config.precision
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16", False) else "f32"


def autocast(precision: str) -> AbstractContextManager[None]:
    """Return the context for forward passes: products in ``precision``, weights and gradients in float32."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
