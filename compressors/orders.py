"""Removal orders of a network's heads and channels, found once and kept in the calibration."""

from typing import Literal

from torch import Tensor

from compressors.calibration.statistics import Calibration
from compressors.methods.removal_order import channel_energies
from compressors.methods.removal_order import head_energies
from compressors.methods.removal_order import magnitude_order
from compressors.methods.removal_order import obs_channel_order
from compressors.methods.removal_order import obs_group_order
from compressors.network import Attention
from compressors.network import FeedForward
from compressors.network import Layer
from infra.errors import InvalidInputError

Criterion = Literal["obs", "magnitude", "taylor"]


def head_order(layer: Layer, calibration: Calibration, criterion: Criterion) -> Tensor:
    """Return the order in which the layer's heads are removed, int64 ``[heads]``, first entry first.

    Raises:
        InvalidInputError: the criterion needs gradients and the calibration has none.
    """
    attention = layer.attention
    assert attention is not None
    key = f"{layer.index}.heads.{criterion}"
    if key not in calibration.orders:
        calibration.orders[key] = _head_order(layer.index, attention, calibration, criterion)
    return calibration.orders[key]


def channel_order(layer: Layer, calibration: Calibration, criterion: Criterion) -> Tensor:
    """Return the order in which the layer's feed-forward channels are removed, int64 ``[intermediate]``.

    Raises:
        InvalidInputError: the criterion needs gradients and the calibration has none.
    """
    branch = layer.feed_forward
    assert branch is not None
    key = f"{layer.index}.channels.{criterion}"
    if key not in calibration.orders:
        calibration.orders[key] = _channel_order(layer.index, branch, calibration, criterion)
    return calibration.orders[key]


def _head_order(index: int, attention: Attention, calibration: Calibration, criterion: Criterion) -> Tensor:
    output = attention.output.matrix()
    if criterion == "obs":
        centred = calibration.at(index, "attention_out").centred
        return obs_group_order(output, centred, attention.head_size)
    if criterion == "magnitude":
        inputs = (attention.query.matrix(), attention.key.matrix(), attention.value.matrix())
        return magnitude_order(head_energies(*inputs, output, attention.head_size))
    raise _no_gradients()


def _channel_order(index: int, branch: FeedForward, calibration: Calibration, criterion: Criterion) -> Tensor:
    down = branch.down.matrix()
    if criterion == "obs":
        return obs_channel_order(down, calibration.at(index, "feed_forward_mid").centred)
    if criterion == "magnitude":
        return magnitude_order(channel_energies(branch.up.matrix(), down))
    raise _no_gradients()


def _no_gradients() -> InvalidInputError:
    return InvalidInputError(
        "The criterion 'taylor' needs gradients, which this calibration does not have.",
        hint="Use the criterion 'obs', or add Taylor orders to the calibration first.",
    )
