import pytest
import torch

from compressors.linear_algebra import reconstruction_error
from compressors.methods.low_rank import factorise
from compressors.methods.low_rank import plain_basis
from compressors.methods.low_rank import whitened_basis
from tests.unit.compressors.data import centred_output_error
from tests.unit.compressors.data import correlated_inputs
from tests.unit.compressors.data import moments_of
from tests.unit.compressors.data import random_weight


@pytest.mark.parametrize(("outputs", "inputs"), [(6, 10), (10, 6), (8, 8)])
def test_equals_svd_llm_and_its_error_is_the_tail(outputs: int, inputs: int):
    activations, weight = correlated_inputs(200, inputs), random_weight(outputs, inputs)
    centred = moments_of(activations).centred
    lower = torch.linalg.cholesky(centred)
    left_vectors, values, right_vectors = torch.linalg.svd(weight @ lower, full_matrices=False)
    basis = whitened_basis(weight, centred, relative=0.0)
    torch.testing.assert_close(basis.singular_values, values, atol=1e-8, rtol=1e-8)
    for rank in range(1, min(outputs, inputs) + 1):
        left, right = factorise(weight, basis, rank)
        truncated = (left_vectors[:, :rank] * values[:rank]) @ right_vectors[:rank]
        expected = torch.linalg.solve_triangular(lower, truncated, upper=False, left=False)
        torch.testing.assert_close(left @ right, expected, atol=1e-8, rtol=0)
        error = centred_output_error(activations, weight - left @ right)
        assert error == pytest.approx(float(values[rank:].square().sum()), abs=1e-7)


@pytest.mark.parametrize(("outputs", "inputs"), [(6, 12), (12, 6)])
def test_singular_inputs_lose_nothing_at_their_rank(outputs: int, inputs: int):
    activations = correlated_inputs(50, inputs)
    activations[:, 3:] = activations[:, :3] @ random_weight(3, inputs - 3)  # rank 3, up to the mean
    centred, weight = moments_of(activations).centred, random_weight(outputs, inputs)
    left, right = factorise(weight, whitened_basis(weight, centred, relative=1e-10), 3)
    scale = reconstruction_error(weight, centred)
    assert centred_output_error(activations, weight - left @ right) < 1e-6 * scale


def test_plain_is_the_best_for_the_weights_and_whitened_for_the_outputs():
    activations, weight = correlated_inputs(300, 16), random_weight(12, 16)
    centred = moments_of(activations).centred
    plain, whitened = (
        torch.mm(*factorise(weight, basis, 4)) for basis in (plain_basis(weight), whitened_basis(weight, centred))
    )
    values = torch.linalg.svdvals(weight)
    assert float((weight - plain).square().sum()) == pytest.approx(float(values[4:].square().sum()), rel=1e-8)
    assert reconstruction_error(weight - whitened, centred) < reconstruction_error(weight - plain, centred)


def test_a_zero_matrix_factorises_to_zero():
    weight = torch.zeros(5, 7, dtype=torch.float64)
    left, right = factorise(weight, plain_basis(weight), 2)
    assert torch.equal(left @ right, weight)
