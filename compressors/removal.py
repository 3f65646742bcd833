"""Physical removal of heads and feed-forward channels, with or without re-solving what reads the rest."""

from torch import Tensor

from compressors.acceptance import accepted
from compressors.calibration.statistics import Calibration
from compressors.calibration.statistics import Site
from compressors.methods.least_squares import NestedSolution
from compressors.methods.least_squares import refit_bias
from compressors.methods.removal_order import expand_groups
from compressors.network import Attention
from compressors.network import FeedForward
from compressors.network import Layer
from compressors.network import Linear
from compressors.orders import Criterion
from compressors.orders import channel_order
from compressors.orders import head_order


def kept_heads(layer: Layer, calibration: Calibration, criterion: Criterion, count: int) -> Tensor:
    """Indices of the ``count`` heads that stay, ascending, int64."""
    return _last(head_order(layer, calibration, criterion), count).sort().values


def kept_channels(layer: Layer, calibration: Calibration, criterion: Criterion, count: int) -> Tensor:
    """Indices of the ``count`` feed-forward channels that stay, ascending, int64."""
    return _last(channel_order(layer, calibration, criterion), count).sort().values


def remove_heads(
    layer: Layer,
    calibration: Calibration,
    criterion: Criterion,
    count: int,
    compensate: bool,
    fallbacks: list[str] | None = None,
) -> tuple[Attention, Tensor]:
    """Keep ``count >= 1`` heads of the layer.

    Rows of query, key and value go exactly: nothing else reads them. The output projection is re-solved for the heads
    that stay, with its bias, if ``compensate``; its weights stay as they are where that is better, and its name is
    added to ``fallbacks`` (:mod:`compressors.acceptance`).

    Returns:
        The smaller attention, and the inputs of the output projection that stay, ascending, int64.
    """
    attention = layer.attention
    assert attention is not None
    heads = kept_heads(layer, calibration, criterion, count)
    rows = expand_groups(heads, attention.head_size)
    importance = expand_groups(head_order(layer, calibration, criterion).flip(0), attention.head_size)
    if compensate:
        key = f"{layer.index}.attention.{criterion}"
        site: Site = "attention_out"
        output = _solve(attention.output, calibration, layer.index, site, key, importance, len(rows), fallbacks)
    else:
        output = _take_columns(attention.output, rows)
    smaller = Attention(
        query=_take_rows(attention.query, rows),
        key=_take_rows(attention.key, rows),
        value=_take_rows(attention.value, rows),
        output=output,
        heads=count,
        head_size=attention.head_size,
    )
    return smaller, rows


def remove_channels(
    layer: Layer,
    calibration: Calibration,
    criterion: Criterion,
    count: int,
    compensate: bool,
    fallbacks: list[str] | None = None,
) -> tuple[FeedForward, Tensor]:
    """Keep ``count >= 1`` feed-forward channels of the layer; otherwise as :func:`remove_heads`."""
    branch = layer.feed_forward
    assert branch is not None
    channels = kept_channels(layer, calibration, criterion, count)
    if compensate:
        importance = channel_order(layer, calibration, criterion).flip(0)
        key = f"{layer.index}.feed_forward.{criterion}"
        down = _solve(branch.down, calibration, layer.index, "feed_forward_mid", key, importance, count, fallbacks)
    else:
        down = _take_columns(branch.down, channels)
    return FeedForward(_take_rows(branch.up, channels), down, branch.activation), channels


def _solve(
    linear: Linear,
    calibration: Calibration,
    layer: int,
    site: Site,
    key: str,
    importance: Tensor,
    count: int,
    fallbacks: list[str] | None,
) -> Linear:
    """Keep the ``count`` most important inputs of ``linear``, re-solved, with the bias refitted."""
    weight, statistics = linear.matrix(), calibration.at(layer, site)
    solution = calibration.cache.get(
        f"solution.{key}", NestedSolution, lambda: NestedSolution.prepare(weight, statistics.centred, importance)
    )
    kept, solved = solution.keep(count)
    name = f"{layer}.{'attention.output' if site == 'attention_out' else 'feed_forward.down'}"
    solved = accepted(name, weight, solved, weight[:, kept], statistics.centred, kept, fallbacks)
    bias = refit_bias(linear.bias, weight, solved, statistics.mean, kept)
    return Linear(solved.float().contiguous(), bias.float(), bits=linear.bits)


def _last(order: Tensor, count: int) -> Tensor:
    return order[len(order) - count :]


def _take_rows(linear: Linear, rows: Tensor) -> Linear:
    bias = None if linear.bias is None else linear.bias[rows]
    return Linear(linear.matrix()[rows], bias, bits=linear.bits)


def _take_columns(linear: Linear, columns: Tensor) -> Linear:
    return Linear(linear.matrix()[:, columns].contiguous(), linear.bias, bits=linear.bits)
