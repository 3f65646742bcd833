"""First and second moments of a linear input, in float64: what the methods of this package work on."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Moments of an input of width ``d``."""

    centred: Tensor
    """``C = X^T X - n mean mean^T``, float64 ``[d, d]``; float32 where the caller asked for them as they are kept."""
    mean: Tensor
    """float64 ``[d]``."""
    count: int
    """``n``."""

    def double(self) -> "Moments":
        """Return the same in float64; no copy of what is float64 already."""
        return Moments(self.centred.double(), self.mean, self.count)

    def gram(self) -> Tensor:
        """Return ``H = X^T X``, float64 ``[d, d]``."""
        return self.centred.addr(self.mean, self.mean, alpha=self.count)

    def second_moment(self) -> Tensor:
        """Return the diagonal of ``X^T X``, float64 ``[d]``."""
        return self.centred.diagonal() + self.count * self.mean.square()

    def restrict(self, kept: Tensor) -> "Moments":
        """Return the moments of the inputs ``kept``, int64 ``[k]``."""
        return Moments(self.centred[kept][:, kept], self.mean[kept], self.count)

    def project(self, matrix: Tensor) -> "Moments":
        """Return the moments of ``matrix @ x`` for ``matrix [m, d]``."""
        return Moments(matrix @ self.centred @ matrix.T, matrix @ self.mean, self.count)
