"""Which widths and ranks are worth having as options. Light: no torch."""

SHRINK = 0.9
"""Each width keeps this share of the one before, as in ZipLM (Kurtic et al. 2023, arXiv:2302.04089)."""
STEPS = (8, 16, 32, 64)
"""Steps of the width that kernels may reward, each twice the one before."""
USUAL_STEP = 32
"""Step where no device has been asked."""
ANCHOR_SHARES = (0.5, 0.25, 0.125, 0.03)
"""Widths at which the end-to-end divergence is evaluated, as fractions of the full one; beside removal."""
RANK_SHARES = (0.25, 0.5, 0.75)
"""Ranks as fractions of the break-even rank, above which two factors cost more than the matrix."""


def head_levels(heads: int) -> tuple[int, ...]:
    """Return every count of heads, all of them first, 0 last."""
    return tuple(range(heads, -1, -1))


def width_levels(full: int, step: int = USUAL_STEP) -> tuple[int, ...]:
    """Return widths from ``full`` down to ``step``, each a tenth less and rounded to a multiple of ``step``, and 0.

    Wide ones are rounded to coarser :data:`STEPS` that are no more than a tenth: such widths suit every device, so that
    levels for one step are mostly levels for another. For ``full`` below ``step`` there is nothing between everything
    and nothing.
    """
    widths, width = {full, 0}, float(full)
    while width > step:
        width *= SHRINK
        multiple = max([step, *(coarser for coarser in STEPS if coarser <= (1 - SHRINK) * width)])
        widths.add(min(full, max(step, round(width / multiple) * multiple)))
    return tuple(sorted(widths, reverse=True))


def all_width_levels(full: int) -> tuple[int, ...]:
    """Return the widths for every one of the :data:`STEPS`: what is computed once serves any device."""
    return tuple(sorted({width for step in STEPS for width in width_levels(full, step)}, reverse=True))


def computed_width_levels(full: int) -> tuple[int, ...]:
    """Return those of :func:`all_width_levels` whose errors are computed; between these they are interpolated.

    The usual ones, and the narrowest: a few channels more or less than none is where errors are no smooth curve.
    """
    usual = width_levels(full)
    return tuple(width for width in all_width_levels(full) if width in usual or width <= USUAL_STEP)


def low_ranks(rows: int, columns: int) -> tuple[int, ...]:
    """Return ranks of a ``rows x columns`` matrix well below break-even, descending."""
    break_even = rows * columns / (rows + columns)
    return tuple(sorted({max(1, int(share * break_even)) for share in RANK_SHARES}, reverse=True))


def anchor_levels(levels: tuple[int, ...]) -> tuple[int, ...]:
    """Return the few of the levels below the first at which a branch is worth evaluating end to end, 0 included.

    They halve and then thin out faster: most of the harm is done by the last channels, and what a solver gives to an
    unimportant branch are exactly those.
    """
    lower = levels[1:]
    wanted = [levels[0] * share for share in ANCHOR_SHARES]
    return tuple(sorted({min(lower, key=lambda level: abs(level - target)) for target in wanted} | {0}, reverse=True))
