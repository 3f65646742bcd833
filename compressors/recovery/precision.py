"""Which arithmetic the training uses."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

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


@contextmanager
def autocast(precision: str) -> Iterator[None]:
    """Return the context for forward passes: products in ``precision``, weights and gradients in float32.

    Attention itself stays in float32: torch's gradient of it in bf16 takes many times as long on a CPU
    (``python -m benchmarks.recovery ... --sections kernels``).
    """
    if precision == "bf16":
        with torch.autocast("cpu", dtype=torch.bfloat16), _Float32Attention():
            yield
    else:
        with torch.autocast("cpu", enabled=False):
            yield


class _Float32Attention(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **given)
        with torch.autocast("cpu", enabled=False):
            return func(*(value.float() if _is_bf16(value) else value for value in args), **given)


def _is_bf16(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16
