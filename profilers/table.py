"""Times of many small models in few races, and what one part of them takes.

The time of a branch is not that of its kernels alone: it is the difference that the branch makes to a whole graph.
"""

from collections.abc import Mapping
from collections.abc import Sequence

from profilers.measure import measure
from profilers.protocol import Handle
from profilers.protocol import Session
from profilers.types import Artifact
from profilers.types import Effort
from profilers.types import Estimate

GROUP_BYTES = 512 * 2**20
"""Models that are resident at the same time, at most; more are timed in several races against the same reference."""


def race_many(
    session: Session,
    reference: Handle,
    artifacts: Mapping[str, Artifact],
    effort: Effort,
    seed: int = 0,
    *,
    group_bytes: int = GROUP_BYTES,
) -> dict[str, Estimate]:
    """Return the latency ratio of each artifact to the reference.

    Args:
        session: An open session.
        reference: The dense model, loaded in it.
        artifacts: Models by name.
        effort: Precision and limits; ``total_seconds`` is for all of them together.
        seed: Of the order of the blocks.
        group_bytes: Files that are loaded at the same time, at most, unless one alone is larger.
    """
    found: dict[str, Estimate] = {}
    for names in groups({name: artifact.path.stat().st_size for name, artifact in artifacts.items()}, group_bytes):
        part = effort
        if effort.total_seconds is not None:
            part = effort.model_copy(update={"total_seconds": effort.total_seconds * len(names) / len(artifacts)})
        handles = {name: session.load(artifacts[name]) for name in names}
        try:
            measured = measure(session, reference, handles, part, seed)
        finally:
            for handle in handles.values():
                session.unload(handle)
        found |= {name: candidate.measurement.ratio for name, candidate in measured.items()}
    return found


def groups(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Split names, in order, into as few runs as possible whose sizes add up to at most ``limit``."""
    found: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not found or size > room:
            found.append([])
            room = limit
        found[-1].append(name)
        room -= size
    return found


def settle(curve: Mapping[int, Estimate]) -> dict[int, float]:
    """Return times over widths that fall nowhere by less than could be noise.

    Neighbours of which the narrower seems slower, within both intervals, take their mean (pool adjacent violators). A
    narrower branch that is clearly slower is left as it is: kernels have such steps.

    Args:
        curve: Time by width.
    """
    pools: list[tuple[list[int], list[float]]] = []
    for width in sorted(curve):
        pools.append(([width], [curve[width].value]))
        while len(pools) > 1 and _mean(pools[-2][1]) > _mean(pools[-1][1]) and _doubtful(curve, pools[-2], pools[-1]):
            widths, values = pools.pop()
            pools[-1] = (pools[-1][0] + widths, pools[-1][1] + values)
    return {width: _mean(values) for widths, values in pools for width in widths}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _doubtful(
    curve: Mapping[int, Estimate], narrow: tuple[list[int], list[float]], wide: tuple[list[int], list[float]]
) -> bool:
    return min(curve[width].low for width in narrow[0]) <= max(curve[width].high for width in wide[0])
