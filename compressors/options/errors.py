"""Relative output error of a branch under a recipe, exactly, from the calibration's moments."""

from functools import cached_property

import torch
from torch import Tensor

from compressors.calibration.statistics import Calibration
from compressors.calibration.statistics import InputStatistics
from compressors.calibration.statistics import Site
from compressors.linear_algebra import times_gram
from compressors.methods.removal_order import expand_groups
from compressors.network import Layer
from compressors.network import Linear
from compressors.options.branches import Branch
from compressors.orders import Criterion
from compressors.removal import kept_channels
from compressors.removal import kept_heads


class BranchErrors:
    """Errors of all options of one branch; what they share is computed once.

    Args:
        layer: The dense layer.
        kind: ``attention`` or ``feed_forward``.
        calibration: Of the dense model.
        criterion: Order in which heads and channels are removed.
    """

    def __init__(self, layer: Layer, kind: str, calibration: Calibration, criterion: Criterion) -> None:
        self._layer = layer
        self._kind = kind
        self._calibration = calibration
        self._criterion = criterion

    def relative_error(self, branch: Branch) -> float:
        """Return the squared error of the branch's output relative to the output's energy, dense inputs throughout.

        Removal and everything done to the last matrix count exactly, in any chain: 0 is dense, 1 is removed. Errors
        that rank, zeros or bit-width cause in the matrices before it are joined to that as if they were independent
        shares.
        """
        if not branch.linears:
            return 1.0
        *readers, writer = branch.linears
        inner, hidden = self._kept(writer.inputs), torch.arange(writer.outputs)
        right = 1.0 - self._writer.relative_error(writer, hidden, inner)
        for number, linear in enumerate(readers):
            if not _is_plain(linear):
                error = self._readers[number].relative_error(linear, inner, hidden)
                right *= 1.0 - min(error, 1.0)
        return 1.0 - right

    @cached_property
    def _dense_linears(self) -> tuple[Linear, ...]:
        return Branch(self._layer.attention if self._kind == "attention" else self._layer.feed_forward).linears

    @cached_property
    def _writer(self) -> "_MatrixError":
        return _MatrixError(self._dense_linears[-1], self._statistics("attention_out", "feed_forward_mid"))

    @cached_property
    def _readers(self) -> tuple["_MatrixError", ...]:
        statistics = self._statistics("attention_in", "feed_forward_in")
        return tuple(_MatrixError(original, statistics) for original in self._dense_linears[:-1])

    def _statistics(self, attention: Site, feed_forward: Site) -> InputStatistics:
        site = attention if self._kind == "attention" else feed_forward
        return self._calibration.at(self._layer.index, site)

    def _kept(self, width: int) -> Tensor:
        """Indices of the channels between the matrices that ``width`` of them leave."""
        if self._kind == "feed_forward":
            return kept_channels(self._layer, self._calibration, self._criterion, width)
        attention = self._layer.attention
        assert attention is not None
        heads = kept_heads(self._layer, self._calibration, self._criterion, width // attention.head_size)
        return expand_groups(heads, attention.head_size)


def _is_plain(linear: Linear) -> bool:
    """Whether the rows that stay are those of the dense matrix: not factorised, not rounded, not masked."""
    return linear.weight is not None and linear.bits >= 16 and bool((linear.weight != 0).all())


class _MatrixError:
    """``||y' - y||^2 / ||y||^2`` of one linear layer for any replacement.

    The same as :func:`compressors.linear_algebra.composed_error` with a refitted offset, with the products that only
    involve the original kept. Computed in float64; the moments stay in float32, which is how they are given.
    """

    def __init__(self, original: Linear, statistics: InputStatistics) -> None:
        self._statistics = statistics
        weight = original.matrix().double()
        self._product = times_gram(weight, statistics.centred)
        self._energy = (self._product * weight).sum(1)
        self._mean_output = weight @ statistics.mean
        if original.bias is not None:
            self._mean_output += original.bias.double()
        self._output_energy = self._energy + statistics.count * self._mean_output.square()

    def relative_error(self, linear: Linear, outputs: Tensor, inputs: Tensor) -> float:
        """Return the error of ``linear``, which keeps ``outputs`` and ``inputs``, over the outputs that it keeps."""
        weight = linear.matrix().double()
        centred, mean = self._statistics.centred, self._statistics.mean
        product = self._product if len(outputs) == len(self._product) else self._product[outputs]
        product = product if len(inputs) == product.shape[1] else product[:, inputs]
        cross, remaining = _inner(weight, product), _inner(weight, times_gram(weight, centred, inputs, inputs))
        offset = self._mean_output[outputs] - weight @ mean[inputs]
        if linear.bias is not None:
            offset = offset - linear.bias.double()
        error = self._energy[outputs].sum() - 2 * cross + remaining + self._statistics.count * offset.square().sum()
        return max(float(error), 0.0) / float(self._output_energy[outputs].sum())


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Return the sum of the products of all entries, without a matrix of them."""
    return torch.dot(left.reshape(-1), right.reshape(-1))
