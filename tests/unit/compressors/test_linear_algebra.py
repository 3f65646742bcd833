import pytest
import torch

from compressors.linear_algebra import composed_error
from compressors.linear_algebra import damped_factor
from compressors.linear_algebra import divide_by_lower
from compressors.linear_algebra import inverse
from compressors.linear_algebra import output_energy
from compressors.linear_algebra import reconstruction_error
from compressors.linear_algebra import solve_right
from compressors.linear_algebra import times_gram
from compressors.linear_algebra import upper_inverse_factor
from compressors.methods.least_squares import removal_update
from compressors.methods.low_rank import factorise
from compressors.methods.low_rank import whitened_basis
from compressors.methods.rounding import gptq
from tests.unit.compressors.data import centred_output_error
from tests.unit.compressors.data import correlated_inputs
from tests.unit.compressors.data import moments_of
from tests.unit.compressors.data import random_weight


@pytest.mark.parametrize("mode", ["diagonal", "mean"])
def test_factor_solves_the_damped_system(mode):
    centred = moments_of(correlated_inputs(200, 12)).centred
    base = centred.diagonal() if mode == "diagonal" else centred.diagonal().mean().expand(12)
    damped = centred + torch.diag(0.05 * base)
    factor = damped_factor(centred, 0.05, mode)
    right = random_weight(3, 12)
    torch.testing.assert_close(solve_right(right, factor) @ damped, right, atol=1e-8, rtol=0)
    torch.testing.assert_close(inverse(factor) @ damped, torch.eye(12, dtype=torch.float64), atol=1e-8, rtol=0)
    upper = upper_inverse_factor(centred, 0.05, mode)
    torch.testing.assert_close(upper, upper.triu(), atol=0, rtol=0)
    expected = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    torch.testing.assert_close(upper, expected, atol=1e-8, rtol=0)


def test_work_in_stretches_of_columns_is_that_on_whole_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    centred = moments_of(correlated_inputs(200, 12)).centred
    factor, matrix = damped_factor(centred, 0.05), random_weight(3, 12)
    rows, columns = torch.tensor([7, 2, 3]), torch.tensor([0, 11, 4, 5, 6, 1, 9])
    monkeypatch.setattr("compressors.linear_algebra._COLUMNS", 5)  # two whole stretches and a rest
    solved = torch.linalg.solve(centred + torch.diag(0.05 * centred.diagonal()), matrix, left=False)
    torch.testing.assert_close(solve_right(matrix, factor), solved, atol=1e-9, rtol=0)
    for count in (1, 5, 9, 12):
        lower = factor.lower[:count, :count]
        torch.testing.assert_close(divide_by_lower(matrix[:, :count], lower) @ lower, matrix[:, :count])
        torch.testing.assert_close(
            divide_by_lower(matrix[:, :count], lower, transposed=True) @ lower.mT, matrix[:, :count]
        )
    torch.testing.assert_close(times_gram(matrix, centred), matrix @ centred)
    expected = matrix[:, :3] @ centred[rows][:, columns]
    torch.testing.assert_close(
        times_gram(matrix[:, :3], centred.float(), rows, columns), expected, rtol=1e-5, atol=1e-5
    )


def test_a_huge_channel_does_not_switch_compensation_off_elsewhere():
    inputs = correlated_inputs(400, 10)
    inputs[:, 0] *= 1e4
    centred, kept = moments_of(inputs).centred, torch.arange(6)
    weight = random_weight(4, 10)

    def error(mode):
        factor = damped_factor(centred[kept][:, kept], 1e-2, mode)
        solved = weight[:, kept] + solve_right(weight[:, 6:] @ centred[6:][:, kept], factor)
        return composed_error(weight, solved, kept, centred)

    untouched = composed_error(weight, weight[:, kept], kept, centred)
    assert error("diagonal") < 0.9 * untouched
    assert error("diagonal") < error("mean")


def test_inputs_without_variance_are_harmless():
    inputs = correlated_inputs(100, 8)
    inputs[:, 2] = 1.5
    inputs[:, 5] = 0.0
    centred = moments_of(inputs).centred
    factor = damped_factor(centred)
    assert torch.isfinite(factor.lower).all()
    assert factor.scale[2] == factor.scale[5] == 1
    kept = torch.tensor([0, 1, 2, 3, 5])
    solved = removal_update(random_weight(3, 8), centred, kept)
    torch.testing.assert_close(solved[:, [2, 4]], random_weight(3, 8)[:, [2, 5]], atol=1e-9, rtol=0)


def test_a_singular_matrix_still_factorises():
    inputs = correlated_inputs(5, 12)  # fewer tokens than channels
    factor = damped_factor(moments_of(inputs).centred, 0.0)
    assert torch.isfinite(inverse(factor)).all()


def test_errors_equal_those_of_the_activations():
    inputs, weight = correlated_inputs(300, 16), random_weight(5, 16)
    moments = moments_of(inputs)
    kept = torch.tensor([0, 2, 3, 4, 7, 8, 9, 11, 12, 15])
    pruned = removal_update(weight, moments.centred, kept)
    restricted = moments.restrict(kept).centred
    left, right = factorise(pruned, whitened_basis(pruned, restricted), 3)
    for final in (pruned, gptq(pruned, restricted, 4), left @ right):
        whole = torch.zeros_like(weight)
        whole[:, kept] = final
        expected = centred_output_error(inputs, weight - whole)
        assert composed_error(weight, final, kept, moments.centred) == pytest.approx(expected, rel=1e-8)
        assert reconstruction_error(weight - whole, moments.centred) == pytest.approx(expected, rel=1e-8)


def test_energy_is_the_error_of_removing_the_branch():
    inputs, weight = correlated_inputs(100, 6), random_weight(4, 6)
    bias = random_weight(4, 1)[:, 0]
    moments = moments_of(inputs)
    expected = float((inputs @ weight.T + bias).square().sum())
    assert output_energy(weight, bias, moments.centred, moments.mean, 100) == pytest.approx(expected, rel=1e-10)
    torch.testing.assert_close(moments.gram(), inputs.T @ inputs, atol=1e-8, rtol=0)
    torch.testing.assert_close(moments.second_moment(), inputs.square().sum(0), atol=1e-8, rtol=0)
