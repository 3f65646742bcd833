"""Which widths and ranks are worth having as options. Light: no torch."""

SHRINK = 0.9
"""Each width keeps this share of the one before, as in ZipLM (Kurtic et al. 2023, arXiv:2302.04089)."""
MULTIPLE = 32
"""Widths are multiples of this: narrower steps change the time of a matrix product on no device that we know."""
ANCHOR_SHARES = (0.5, 0.25, 0.125, 0.03)
"""Widths at which the end-to-end divergence is evaluated, as fractions of the full one; beside removal."""
RANK_SHARES = (0.25, 0.5, 0.75)
"""Ranks as fractions of the break-even rank, above which two factors cost more than the matrix."""


def head_levels(heads: int) -> tuple[int, ...]:
    """Return every count of heads, all of them first, 0 last."""
    return tuple(range(heads, -1, -1))


def width_levels(full: int, multiple: int = MULTIPLE) -> tuple[int, ...]:
    """Return widths from ``full`` down to ``multiple`` in steps of a tenth, rounded, and 0.

    For ``full`` below ``multiple`` there is nothing between everything and nothing.
    """
    widths, width = {full, 0}, float(full)
    while width > multiple:
        width *= SHRINK
        widths.add(min(full, max(multiple, round(width / multiple) * multiple)))
    return tuple(sorted(widths, reverse=True))


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
