"""In which order heads and feed-forward channels are removed.

An order is an int64 tensor: the first entry is removed first. Keeping ``k`` units therefore means keeping the last
``k`` entries; the sets of all levels are nested.
"""

import torch
from torch import Tensor

from compressors.linear_algebra import RELATIVE_DAMPING
from compressors.linear_algebra import DampedFactor
from compressors.linear_algebra import damped_factor
from compressors.linear_algebra import inverse
from compressors.linear_algebra import solve_right
from compressors.linear_algebra import times_gram

_PENDING = 32
_REFRESH = 384


def obs_channel_order(weight: Tensor, centred: Tensor, relative: float = RELATIVE_DAMPING) -> Tensor:
    """Greedy optimal-brain-surgeon order of single input channels (Kurtic et al. 2023, ZipLM; arXiv:2302.04089).

    Each step removes the channel whose exact removal, all survivors re-solved, costs least: ``||W_:j||^2 /
    (C^-1)_jj``. Only ``C^-1`` and ``W^T W`` are tracked, both through symmetric rank-one updates that are applied in
    blocks, which is exact and keeps the work in matrix products. Both are rebuilt from scratch every 384 removals.

    Args:
        weight: ``[out, in]``, for a feed-forward branch the weight of ``down``.
        centred: ``[in, in]``, float32 or float64; computed with in float64.
        relative: damping, see :func:`compressors.linear_algebra.damped_factor`.

    Returns:
        int64 ``[in]``.
    """
    weight = weight.double()
    alive = torch.arange(weight.shape[1])
    removed: list[Tensor] = []
    while len(alive) > 0:
        # Closed form for the survivors: W_K' = W (C + Lambda)_:K (C + Lambda)_KK^-1.
        factor = damped_factor(centred if not removed else centred[alive][:, alive], relative)
        current = _resolve(weight, centred, alive, factor)
        inverse_gram = inverse(factor)
        del factor  # of wide branches each of these takes much memory
        steps = _sweep(current.T @ current, inverse_gram, min(_REFRESH, len(alive)))
        removed.append(alive[steps])
        survives = torch.ones(len(alive), dtype=torch.bool)
        survives[steps] = False
        alive = alive[survives]
    return torch.cat(removed) if removed else alive


def _resolve(weight: Tensor, centred: Tensor, alive: Tensor, factor: DampedFactor) -> Tensor:
    """Return the re-solved weights of the survivors, ``[out, |alive|]``."""
    if len(alive) == weight.shape[1]:
        return weight
    damping = factor.damping * factor.scale.square()
    return solve_right(times_gram(weight, centred, columns=alive) + weight[:, alive] * damping, factor)


def _sweep(products: Tensor, inverse_gram: Tensor, steps: int) -> Tensor:
    """Remove ``steps`` channels greedily; ``products = W^T W`` and ``inverse_gram`` are updated in place.

    Removing ``j`` with ``v = Hi_:j / sqrt(Hi_jj)`` changes ``Hi`` by ``-v v^T`` and ``G = W^T W`` by ``-(u v^T + v
    u^T)``, where ``u = G_:j / sqrt(Hi_jj) - G_jj / (2 Hi_jj) v``.
    """
    size = products.shape[0]
    tiny = torch.finfo(products.dtype).tiny
    energy, inverse_diagonal = products.diagonal().clone(), inverse_gram.diagonal().clone()
    gone = torch.zeros(size, dtype=torch.bool)
    order = torch.empty(steps, dtype=torch.int64)
    first, second = torch.empty(_PENDING, size, dtype=products.dtype), torch.empty(_PENDING, size, dtype=products.dtype)
    pending = 0
    for step in range(steps):
        score = (energy / inverse_diagonal.clamp_min(tiny)).masked_fill(gone, torch.inf)
        index = int(score.argmin())
        order[step] = index
        v, u = first[:pending], second[:pending]
        column = inverse_gram[index] - v[:, index] @ v
        product = products[index] - u[:, index] @ v - v[:, index] @ u
        root = column[index].clamp_min(tiny).sqrt()
        new_v = column / root
        new_u = product / root - product[index] / (2 * root.square()) * new_v
        inverse_diagonal -= new_v.square()
        energy -= 2 * new_u * new_v
        gone[index] = True
        first[pending], second[pending] = new_v, new_u
        pending += 1
        if pending == _PENDING:
            inverse_gram.addmm_(first.T, first, alpha=-1)
            products.addmm_(second.T, first, alpha=-1).addmm_(first.T, second, alpha=-1)
            pending = 0
    return order


def obs_group_order(weight: Tensor, centred: Tensor, size: int, relative: float = RELATIVE_DAMPING) -> Tensor:
    """Greedy optimal-brain-surgeon order of groups of ``size`` consecutive inputs, such as attention heads.

    Each step removes the group with the least exact cost ``tr(W_M [(C^-1)_MM]^-1 W_M^T)``; weights and inverse are
    rebuilt in closed form after each removal, so nothing drifts.

    Args:
        weight: ``[out, groups * size]``, for attention the weight of the output projection.
        centred: ``[groups * size, groups * size]``.
        size: inputs in a group, for attention the head size.
        relative: damping, see :func:`compressors.linear_algebra.damped_factor`.

    Returns:
        int64 ``[groups]``.
    """
    weight = weight.double()
    groups = weight.shape[1] // size
    alive = list(range(groups))
    order: list[int] = []
    while alive:
        columns = expand_groups(torch.tensor(alive), size)
        factor = damped_factor(centred[columns][:, columns], relative)
        current = _resolve(weight, centred, columns, factor)
        inverse_gram = inverse(factor)
        blocks = inverse_gram.view(len(alive), size, len(alive), size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        per_group = current.view(-1, len(alive), size).permute(1, 2, 0)  # [groups, size, out]
        solved = torch.linalg.solve(blocks, per_group)
        scores = (per_group * solved).sum((1, 2))
        order.append(alive.pop(int(scores.argmin())))
    return torch.tensor(order, dtype=torch.int64)


def magnitude_order(energies: Tensor) -> Tensor:
    """Order by the sum of squares of all weights that belong to a unit. ``[units]`` -> int64 ``[units]``."""
    return torch.argsort(energies.double(), stable=True)


def channel_energies(up: Tensor, down: Tensor) -> Tensor:
    """Sum of squares of each feed-forward channel: its row of ``up`` and its column of ``down``."""
    return up.double().square().sum(1) + down.double().square().sum(0)


def head_energies(query: Tensor, key: Tensor, value: Tensor, output: Tensor, head_size: int) -> Tensor:
    """Sum of squares of each head: its rows of query, key and value and its columns of the output projection."""
    rows = sum(matrix.double().square().sum(1) for matrix in (query, key, value))
    return (rows + output.double().square().sum(0)).view(-1, head_size).sum(1)


def expand_groups(groups: Tensor, size: int) -> Tensor:
    """Indices of the inputs that belong to ``groups``: int64 ``[n]`` -> int64 ``[n * size]``."""
    return (groups[:, None] * size + torch.arange(size)).flatten()
