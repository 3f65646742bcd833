"""What happens to a single matrix after removal: factorise, then mask, then round; each against the same moments.

Removal leaves the survivors at their (damped) optimum, where the gradient of the output error vanishes. The error of
every further step is therefore measured from the survivors as they are, and no step needs the original matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from compressors.acceptance import accepted
from compressors.calibration.cache import ByteCache
from compressors.linear_algebra import upper_inverse_factor
from compressors.methods.least_squares import refit_bias
from compressors.methods.low_rank import Basis
from compressors.methods.low_rank import factorise
from compressors.methods.low_rank import plain_basis
from compressors.methods.low_rank import whitened_basis
from compressors.methods.masks import magnitude_mask
from compressors.methods.masks import sparsegpt
from compressors.methods.masks import wanda_mask
from compressors.methods.rounding import gptq
from compressors.methods.rounding import nearest
from compressors.moments import Moments
from compressors.network import Linear
from compressors.recipe import BranchRecipe
from compressors.recipe import Recipe


@dataclass
class MatrixInput:
    """The input of one matrix, whose moments are only computed when a method asks for them.

    Attributes:
        compute: Computes them, in the dtype that they are kept in.
        cache: Where the factor of the sweeps is kept for other recipes of the same matrix.
        key: Its name there.
    """

    compute: Callable[[], Moments]
    cache: ByteCache | None = None
    key: str = ""

    @cached_property
    def stored(self) -> Moments:
        """Moments of the input in the dtype that they are kept in: of wide inputs, a float64 copy takes much memory."""
        return self.compute()

    @cached_property
    def moments(self) -> Moments:
        """Moments of the input in float64."""
        return self.stored.double()

    @property
    def sweep(self) -> Tensor:
        """Upper triangular factor of the inverse, float64 ``[in, in]``."""

        def factor() -> Tensor:
            return upper_inverse_factor(self.moments.centred)

        return factor() if self.cache is None else self.cache.get(f"sweep.{self.key}", Tensor, factor)


def refine(
    linear: Linear,
    given: MatrixInput,
    branch: BranchRecipe,
    recipe: Recipe,
    cache: ByteCache,
    key: str,
    fallbacks: list[str] | None = None,
) -> Linear:
    """Return ``linear`` with the branch's rank, sparsity and bit-width.

    A rank that is not below both sides of the matrix leaves it dense. Where nothing changes, the tensors are shared
    with ``linear``. Zeros and rounding without compensation are kept where they are better.

    Args:
        linear: a dense layer, after removal.
        given: what it reads.
        branch: rank, sparsity with mask and pattern, bits.
        recipe: the global choices: factorisation, rounding, compensation.
        cache: for bases.
        key: names this matrix, including what was removed before.
        fallbacks: gets the key where that is so (:mod:`compressors.acceptance`).
    """

    def zero_and_round(weight: Tensor, given: MatrixInput) -> Tensor:
        return _zero_and_round(weight, given, branch, recipe, rounds, key, fallbacks)

    weight = linear.matrix()
    rank = branch.rank if branch.rank is not None and branch.rank < min(weight.shape) else None
    rounds = branch.bits in (4, 8) and recipe.quantization.rounding == "gptq"
    if rank is None and branch.sparsity == 0 and not rounds:
        return Linear(linear.weight, linear.bias, linear.left, linear.right, branch.bits)
    if rank is None:
        dense = zero_and_round(weight.double(), given)
        return Linear(dense.float(), _bias(linear, dense, given, recipe), bits=branch.bits)
    basis = cache.get(f"basis.{key}.{recipe.factorization}", Basis, lambda: _basis(weight, given, recipe))
    left, right = factorise(weight, basis, rank)
    right = zero_and_round(right, given)
    latent = MatrixInput(lambda: given.moments.project(right))
    left = zero_and_round(left, latent)
    bias = _bias(linear, left @ right, given, recipe)
    return Linear(None, bias, left.float().contiguous(), right.float().contiguous(), branch.bits)


def _basis(weight: Tensor, given: MatrixInput, recipe: Recipe) -> Basis:
    return plain_basis(weight) if recipe.factorization == "plain" else whitened_basis(weight, given.stored.centred)


def _zero_and_round(
    weight: Tensor,
    given: MatrixInput,
    branch: BranchRecipe,
    recipe: Recipe,
    rounds: bool,
    key: str,
    fallbacks: list[str] | None,
) -> Tensor:
    """Mask, then round, one matrix; float64 in and out."""
    mask: Tensor | None = None
    if branch.sparsity > 0:
        zeroed, mask = _sparsify(weight, given, branch)
        if branch.mask == "sparsegpt":
            zeroed = accepted(key, weight, zeroed, weight * mask, given.moments.centred, fallbacks=fallbacks)
        weight = zeroed
    if not rounds:
        return weight
    grid, size = recipe.quantization.grid_bits(branch.bits), recipe.quantization.block_size(branch.bits)
    solved, plain = gptq(weight, given.moments.centred, grid, mask, size=size), nearest(weight, grid, size=size)
    return accepted(key, weight, solved, plain, given.moments.centred, fallbacks=fallbacks)


def _sparsify(weight: Tensor, given: MatrixInput, branch: BranchRecipe) -> tuple[Tensor, Tensor]:
    if branch.mask == "sparsegpt":
        return sparsegpt(weight, given.moments.centred, branch.sparsity, branch.pattern, upper=given.sweep)
    if branch.mask == "magnitude":
        mask = magnitude_mask(weight, branch.sparsity, branch.pattern)
    else:
        mask = wanda_mask(weight, given.moments.second_moment(), branch.sparsity, branch.pattern)
    return weight * mask, mask


def _bias(linear: Linear, new_weight: Tensor, given: MatrixInput, recipe: Recipe) -> Tensor | None:
    if recipe.compensation == "none":
        return linear.bias
    return refit_bias(linear.bias, linear.matrix(), new_weight, given.stored.mean, None).float()
