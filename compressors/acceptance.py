"""What is solved for must not lose to what is had for nothing, on the statistics that it was solved with.

In exact arithmetic compensation never loses: the naive weights are among those that it chooses from. Where a
factorisation has lost its digits, or damping decides in the place of text, it may, and nobody would see it. One check
of the results catches that, whatever has gone wrong.
"""

import torch
from torch import Tensor

from compressors.linear_algebra import times_gram

TOLERANCE = 1e-3
"""Of rounding, relative to what the change alone contributes to the error."""


def is_no_worse(weight: Tensor, solved: Tensor, naive: Tensor, kept: Tensor, centred: Tensor) -> bool:
    """Whether ``solved`` has at most the output error of ``naive``, without damping, each with its best bias.

    With ``D = solved - naive`` and ``R``, what ``naive`` lacks of the weights, the difference of the two errors is
    ``tr(D C_KK D^T) - 2 tr(R C_:K D^T)``. Computed in the dtype of ``centred``: float32 is enough for its sign.

    Args:
        weight: ``W [out, in]``.
        solved: ``[out, |K|]``; entries that are not finite are always worse.
        naive: ``[out, |K|]``.
        kept: int64, indices of ``K``.
        centred: ``C [in, in]``.
    """
    change = (solved - naive).to(centred.dtype)
    if not bool(torch.isfinite(change).all()):
        return False
    rest = weight.to(centred.dtype).clone()
    rest[:, kept] -= naive.to(centred.dtype)
    lacking = rest.any(0).nonzero()[:, 0]
    own = (times_gram(change, centred, kept, kept) * change).sum()
    shared = (times_gram(rest[:, lacking], centred, lacking, kept) * change).sum()
    return bool(own - 2 * shared <= TOLERANCE * own.abs())


def accepted(
    name: str,
    weight: Tensor,
    solved: Tensor,
    naive: Tensor,
    centred: Tensor,
    kept: Tensor | None = None,
    fallbacks: list[str] | None = None,
) -> Tensor:
    """Return ``solved`` if it is no worse than ``naive``, else ``naive``; shapes as for :func:`is_no_worse`.

    Args:
        name: Of the matrix.
        weight: What both stand for.
        solved: What a method with compensation gave.
        naive: The same without.
        centred: Of the inputs.
        kept: Inputs that are left; ``None``: all.
        fallbacks: The name is added where ``naive`` is returned.
    """
    kept = torch.arange(weight.shape[1]) if kept is None else kept
    if is_no_worse(weight, solved, naive, kept, centred):
        return solved
    if fallbacks is not None:
        fallbacks.append(name)
    return naive.to(solved.dtype)
