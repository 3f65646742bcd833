"""What was removed from a model: layers by kinds of compression."""

from dataclasses import dataclass
from typing import Any

from search.views import LayerView
from search.views import TrialView

FULL_BITS = 32

KINDS = (
    ("attention", ("heads", "rank", "sparsity", "bits")),
    ("feed-forward", ("width", "rank", "sparsity", "bits")),
)
"""The columns: branch of the layer, and what can be removed from it."""


@dataclass(frozen=True)
class Cell:
    """What is left of one kind in one layer.

    Attributes:
        text: What is left, such as ``6 of 12``.
        removed: Share that was removed, 0 to 1.
    """

    text: str
    removed: float


def heatmap(trial: TrialView, dense: dict[str, Any]) -> list[list[Cell]]:
    """Return one row for each layer with one cell for each of :data:`KINDS`; no rows for baselines.

    Args:
        trial: The model.
        dense: Anatomy of the dense model, as in :attr:`search.views.ReportView.dense`.
    """
    shapes = zip(trial.layers, dense.get("heads", ()), dense.get("intermediate_size", ()), strict=False)
    return [_row(layer, heads, width, dense["head_size"], dense["hidden_size"]) for layer, heads, width in shapes]


def _row(layer: LayerView, heads: int, width: int, head_size: int, hidden_size: int) -> list[Cell]:
    attention = _branch(
        layer.heads,
        heads,
        min(hidden_size, (layer.heads or 0) * head_size),
        layer.attention_rank,
        layer.attention_sparsity,
        layer.attention_bits,
    )
    feed_forward = _branch(
        layer.intermediate_size,
        width,
        min(hidden_size, layer.intermediate_size or 0),
        layer.feed_forward_rank,
        layer.feed_forward_sparsity,
        layer.feed_forward_bits,
    )
    return [*attention, *feed_forward]


def _branch(
    kept: int | None, dense: int, full_rank: int, rank: int | None, sparsity: float, bits: int | None
) -> list[Cell]:
    if not kept:
        return [Cell(f"0 of {dense}", 1.0), *(Cell("gone", 1.0) for _ in range(3))]
    return [
        Cell(f"{kept} of {dense}", _missing(kept, dense)),
        Cell("full", 0.0) if rank is None else Cell(f"{rank} of {full_rank}", _missing(rank, full_rank)),
        Cell(f"{sparsity:.0%}", sparsity),
        Cell(str(bits or FULL_BITS), _missing(bits or FULL_BITS, FULL_BITS)),
    ]


def _missing(kept: int, dense: int) -> float:
    return max(0.0, 1.0 - kept / dense) if dense else 0.0
