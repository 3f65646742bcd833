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


@dataclass(frozen=True)
class Row:
    """What is left of one layer.

    Attributes:
        name: Number of the layer, and what it is merged with.
        cells: One for each of :data:`KINDS`.
    """

    name: str
    cells: list[Cell]


def heatmap(trial: TrialView, dense: dict[str, Any]) -> list[Row]:
    """Return one row for each layer; none for baselines.

    Args:
        trial: The model.
        dense: Anatomy of the dense model, as in :attr:`search.views.ReportView.dense`.
    """
    shapes = zip(trial.layers, dense.get("heads", ()), dense.get("intermediate_size", ()), strict=False)
    sizes = dense["head_size"], dense["hidden_size"]
    return [
        Row(_name(index, layer), _cells(layer, heads, width, *sizes))
        for index, (layer, heads, width) in enumerate(shapes)
    ]


def _name(index: int, layer: LayerView) -> str:
    if layer.merged_into is not None:
        return f"{index}, merged into {layer.merged_into}"
    if not layer.merged:
        return str(index)
    return f"{index}, merged with {' and '.join(str(index + step) for step in range(1, layer.merged + 1))}"


def _cells(layer: LayerView, heads: int, width: int, head_size: int, hidden_size: int) -> list[Cell]:
    if layer.merged_into is not None:
        return [Cell("merged", 1.0)] * sum(len(kinds) for _, kinds in KINDS)
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
