"""Raw samples of one measured candidate, for storage: a measurement can be recomputed from them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from typing import Any
from typing import Self

import numpy as np
from numpy.typing import NDArray

from profilers.blocks import Block


@dataclass(frozen=True)
class PairedSamples:
    """Every block in which the candidate ran, clean or not; arrays of shape ``[blocks]``.

    Attributes:
        candidate_ns: mean time of one run of the candidate, nanoseconds, float64.
        reference_ns: time of one run of the reference.
        control_ns: time of the reference's second run in the block; NaN in blocks without one.
        candidate_cpu_ns: CPU time of one run of the candidate.
        reference_cpu_ns: CPU time of one run of the reference.
        lost_ns: time lost to others in the block, int64.
        preempted: involuntary switches in the block, int32.
        clean: whether the block counted, bool.
        process: number of the fresh process that the block belongs to, int16; 0 with one process.
        candidate_visits_ns: time of one run of the candidate in each of its visits, ``[blocks, visits]``; where
            processes differ in their number of visits, the rest is NaN.
        reference_visits_ns: the same of the reference.
    """

    candidate_ns: NDArray[np.float64]
    reference_ns: NDArray[np.float64]
    control_ns: NDArray[np.float64]
    candidate_cpu_ns: NDArray[np.float64]
    reference_cpu_ns: NDArray[np.float64]
    lost_ns: NDArray[np.int64]
    preempted: NDArray[np.int32]
    clean: NDArray[np.bool_]
    process: NDArray[np.int16]
    candidate_visits_ns: NDArray[np.float64]
    reference_visits_ns: NDArray[np.float64]

    def to_npz(self) -> bytes:
        """Return the arrays as a compressed ``.npz`` file."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, data: bytes) -> Self:
        """Read what :meth:`to_npz` wrote.

        Raises:
            ValueError: It is not such a file.
            KeyError: An array is missing.
        """
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join the samples of several processes; ``process`` numbers them in the given order."""
        joined = {field.name: _join([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        lengths = [len(part.candidate_ns) for part in parts]
        joined["process"] = np.repeat(np.arange(len(parts), dtype=np.int16), lengths)
        return cls(**joined)


def paired_samples(blocks: Sequence[Block], candidate: str, reference: str, control: str) -> PairedSamples:
    """Collect the blocks in which ``candidate`` ran."""
    chosen = [block for block in blocks if candidate in block.names]

    def column(name: str, attribute: str) -> NDArray[np.float64]:
        return np.array(
            [getattr(b, attribute)[b.names.index(name)] if name in b.names else np.nan for b in chosen],
            dtype=np.float64,
        )

    return PairedSamples(
        candidate_ns=column(candidate, "run_ns"),
        reference_ns=column(reference, "run_ns"),
        control_ns=column(control, "run_ns"),
        candidate_cpu_ns=column(candidate, "cpu_ns"),
        reference_cpu_ns=column(reference, "cpu_ns"),
        lost_ns=np.array([block.lost_ns for block in chosen], dtype=np.int64),
        preempted=np.array([block.preempted for block in chosen], dtype=np.int32),
        clean=np.array([block.clean for block in chosen], dtype=np.bool_),
        process=np.zeros(len(chosen), dtype=np.int16),
        candidate_visits_ns=np.array([block.visits_of(candidate) for block in chosen], dtype=np.float64),
        reference_visits_ns=np.array([block.visits_of(reference) for block in chosen], dtype=np.float64),
    )


def _join(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate along the blocks; narrower parts are filled up with NaN."""
    if parts[0].ndim == 1:
        return np.concatenate(parts)
    width = max(part.shape[1] for part in parts)
    padded = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=np.nan) for part in parts]
    return np.concatenate(padded)
