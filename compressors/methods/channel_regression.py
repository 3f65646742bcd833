"""Ridge regression of one scale and one shift for each channel, kept as far as held-out rows agree.

For every channel ``min sum (r - a x - c)^2 + lambda a^2`` over the rows that are fitted, where ``r`` is what the
outputs lack now: the ridge is towards no step at all. Then the step of all channels together is shortened to what is
best for the rows that are held out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.methods.regression import DAMPINGS
from compressors.methods.regression import LEAST_ROWS


@dataclass
class ChannelSums:
    """Sums over rows of inputs ``x`` and residuals ``r``, channel by channel: all that the regression needs of them.

    Attributes:
        squares: Sum of ``x^2``, float64 ``[channels]``.
        products: Sum of ``r x``, the same shape.
        inputs: Sum of ``x``.
        residuals: Sum of ``r``.
        energy: Sum of ``r^2`` over all channels.
        count: Sum of the rows' weights.
    """

    squares: Tensor
    products: Tensor
    inputs: Tensor
    residuals: Tensor
    energy: float = 0.0
    count: float = 0.0

    @classmethod
    def empty(cls, channels: int) -> "ChannelSums":
        """Return the sums over no rows."""
        squares, products, inputs, residuals = torch.zeros(4, channels, dtype=torch.float64).unbind()
        return cls(squares, products, inputs, residuals)

    def add(self, inputs: Tensor, residuals: Tensor, weights: Tensor) -> None:
        """Take in rows, float32 ``[n, channels]``, with weights ``[n]``."""
        rows = weights[:, None]
        weighted, missing = inputs * rows, residuals * rows
        self.squares += (weighted * inputs).sum(0, dtype=torch.float64)
        self.products += (weighted * residuals).sum(0, dtype=torch.float64)
        self.inputs += weighted.sum(0, dtype=torch.float64)
        self.residuals += missing.sum(0, dtype=torch.float64)
        self.energy += float((missing * residuals).sum(dtype=torch.float64))
        self.count += float(weights.sum())

    def variances(self) -> Tensor:
        """Return the centred sum of ``x^2``, ``[channels]``."""
        return (self.squares - self.inputs.square() / self.count).clamp_min(0)

    def error(self, scale: Tensor, shift: Tensor) -> float:
        """Return ``sum (r - scale x - shift)^2`` over all rows and channels, for float64 ``[channels]``."""
        explained = scale @ self.products + shift @ self.residuals
        return self.energy - 2 * float(explained) + self._length(scale, shift)

    def best_length(self, scale: Tensor, shift: Tensor) -> float:
        """Return the share in [0, 1] of the step at which the error, a parabola in it, is lowest."""
        curvature = self._length(scale, shift)
        slope = float(scale @ self.products + shift @ self.residuals)
        return 0.0 if curvature <= 0 else min(1.0, max(0.0, slope / curvature))

    def _length(self, scale: Tensor, shift: Tensor) -> float:
        """Return ``sum (scale x + shift)^2``."""
        mixed = 2 * (scale * shift) @ self.inputs
        return float(scale.square() @ self.squares + mixed + self.count * shift @ shift)


@dataclass(frozen=True)
class ChannelFit:
    """What to add to the scale and the shift of every channel.

    Attributes:
        scale: Float64 ``[channels]``.
        shift: The same.
        before: Squared error on the held-out rows without them.
        after: The same with them; never above ``before``.
    """

    scale: Tensor
    shift: Tensor
    before: float
    after: float


def refit_channels(fitted: ChannelSums, held: ChannelSums) -> ChannelFit:
    """Fit the residuals of ``fitted``, as far as ``held`` confirms it.

    The damping is relative to the median of the channels' variances: the few channels with very large values of a
    transformer would otherwise decide how far all others may move.
    """
    none = torch.zeros_like(fitted.inputs)
    best = ChannelFit(none, none, held.energy, held.energy)
    if min(fitted.count, held.count) < LEAST_ROWS:
        return best
    variances = fitted.variances()
    covariances = fitted.products - fitted.inputs * fitted.residuals / fitted.count
    ridge = variances.median().clamp_min(torch.finfo(torch.float32).tiny)
    candidates = [none, *(covariances / (variances + damping * ridge) for damping in DAMPINGS)]
    for scale in candidates:
        shift = (fitted.residuals - scale * fitted.inputs) / fitted.count
        length = held.best_length(scale, shift)
        after = held.error(length * scale, length * shift)
        if after < best.after:
            best = ChannelFit(length * scale, length * shift, held.energy, after)
    return best
