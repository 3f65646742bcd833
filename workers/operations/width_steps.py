"""In which steps a device rewards narrower feed-forward branches: a few near widths are timed in every number format.

Narrow ones, without attention beside them: a few channels are then a large part of the time. It is also where widths
are narrow that the step decides which of them are tried; wide ones are further apart anyway.
"""

from collections.abc import Mapping

from compressors.description import Anatomy
from compressors.options.levels import STEPS
from compressors.recipe import Bits
from compressors.recipe import FeedForwardRecipe
from profilers.protocol import Session
from profilers.table import race_many
from profilers.types import Artifact
from profilers.types import Capabilities
from profilers.types import Effort
from profilers.width_step import finest_step
from search.options import Precision
from search.options import WidthStep
from search.prepared import GraphDefaults
from workers.operations.formats import block_formats
from workers.operations.table_block import Block

BASE = STEPS[-1]
"""Width that the others are compared with."""
MORE = (8, 16, 24, 32, 64)
"""How many channels more they have: for each step, a width in the middle between two multiples of twice the step."""
STEPS_SHARE = 0.1
"""Part of the table's time that all of them may take."""
EFFORT = Effort(half_width=0.01, seconds=3.0, min_blocks=10, control_every=2, retreats=0)


def step_blocks(anatomy: Anatomy, capabilities: Capabilities, defaults: GraphDefaults) -> list[Block]:
    """Return the models to time; none where branches are too narrow for them."""
    if max(anatomy.intermediate_size) < BASE + MORE[-1]:
        return []
    return [
        step_block(BASE + more, bits, precision)
        for bits, precision in block_formats(capabilities, defaults)
        for more in (0, *MORE)
    ]


def step_block(width: int, bits: Bits, precision: Precision) -> Block:
    """Return a model with feed-forward branches of a width in all layers, and nothing else."""
    return Block(feed_forward=FeedForwardRecipe(intermediate_size=width, bits=bits), precision=precision)


def measure_steps(
    session: Session, blocks: Mapping[Block, Artifact], seconds: float, seed: int
) -> tuple[WidthStep, ...]:
    """Time the models of each number format against the narrowest of them, and decide.

    Args:
        session: An open session.
        blocks: Models of :func:`step_blocks`.
        seconds: Time for all of them.
        seed: Of the order in which they run.
    """
    formats: dict[tuple[Bits, Precision], dict[int, Artifact]] = {}
    for block, artifact in blocks.items():
        width = block.feed_forward.intermediate_size
        assert width is not None
        formats.setdefault((block.feed_forward.bits, block.precision), {})[width] = artifact
    found = []
    for (bits, precision), artifacts in formats.items():
        effort = EFFORT.model_copy(update={"total_seconds": seconds / len(formats)})
        found.append(_measure(session, artifacts, effort, seed, bits, precision))
    return tuple(found)


def _measure(
    session: Session, artifacts: Mapping[int, Artifact], effort: Effort, seed: int, bits: Bits, precision: Precision
) -> WidthStep:
    base, *wider = sorted(artifacts)
    reference = session.load(artifacts[base])
    try:
        ratios = race_many(session, reference, {str(width): artifacts[width] for width in wider}, effort, seed)
    finally:
        session.unload(reference)
    times = {width - base: ratios[str(width)] for width in wider}
    return WidthStep(bits=bits, precision=precision, base=base, times=times, step=finest_step(times, STEPS))
