"""Instruction sets of this CPU, and what they are worth."""

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

RELEVANT_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Names in ``/proc/cpuinfo`` that change which kernels a runtime picks (x86-64 and AArch64)."""


@dataclass(frozen=True)
class Cpu:
    """A CPU as the kernel describes it.

    Attributes:
        model: marketing name.
        vendor: ``GenuineIntel``, ``AuthenticAMD``, or empty.
        flags: those of :data:`RELEVANT_FLAGS` that are present.
    """

    model: str
    vendor: str
    flags: frozenset[str]

    @property
    def fast_int8(self) -> bool:
        """Whether int8 products have their own instructions (VNNI, AMX, or Arm's dot product)."""
        return bool(self.flags & {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})

    @property
    def saturating_int8(self) -> bool:
        """Whether products of uint8 and int8 are added in pairs in 16 bits, which saturates (x86 before VNNI)."""
        return "avx2" in self.flags and not self.fast_int8

    @property
    def fast_bf16(self) -> bool:
        """Whether bf16 is faster than fp32.

        AMX is. AVX512-BF16 alone is not on Intel: a chain of matrix products took 1.8 times as long as in fp32 under
        OpenVINO's bf16 hint on such a machine. AMD runs those instructions at full rate.
        """
        return "amx_bf16" in self.flags or ("avx512_bf16" in self.flags and self.vendor == "AuthenticAMD")


def parse_cpuinfo(text: str) -> Cpu:
    """Read the first processor of ``/proc/cpuinfo``."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    words = set((fields.get("flags") or fields.get("Features") or "").split())
    return Cpu(
        model=fields.get("model name") or fields.get("CPU part") or "unknown",
        vendor=fields.get("vendor_id", ""),
        flags=frozenset(words & set(RELEVANT_FLAGS)),
    )


@cache
def this_cpu() -> Cpu:
    """Return the CPU of this machine; without ``/proc`` only its name is known."""
    try:
        return parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return Cpu(model=platform.processor() or platform.machine(), vendor="", flags=frozenset())
