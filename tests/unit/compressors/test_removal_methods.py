import pytest
import torch
from torch import Tensor

from compressors.linear_algebra import composed_error
from compressors.methods import removal_order
from compressors.methods.least_squares import NestedSolution
from compressors.methods.least_squares import refit_bias
from compressors.methods.least_squares import removal_update
from compressors.methods.removal_order import channel_energies
from compressors.methods.removal_order import expand_groups
from compressors.methods.removal_order import head_energies
from compressors.methods.removal_order import magnitude_order
from compressors.methods.removal_order import obs_channel_order
from compressors.methods.removal_order import obs_group_order
from tests.unit.compressors.data import centred_output_error
from tests.unit.compressors.data import correlated_inputs
from tests.unit.compressors.data import moments_of
from tests.unit.compressors.data import random_weight

KEPT = torch.tensor([0, 1, 3, 6, 7, 9])


def test_update_equals_least_squares_on_the_activations():
    inputs, weight, bias = correlated_inputs(300, 10), random_weight(4, 10), random_weight(4, 1)[:, 0]
    moments = moments_of(inputs)
    solved = removal_update(weight, moments.centred, KEPT, relative=0.0)
    new_bias = refit_bias(bias, weight, solved, moments.mean, KEPT)
    augmented = torch.cat([inputs[:, KEPT], torch.ones(300, 1, dtype=torch.float64)], dim=1)
    expected = torch.linalg.lstsq(augmented, inputs @ weight.T + bias).solution.T
    torch.testing.assert_close(solved, expected[:, :-1], atol=1e-8, rtol=0)
    torch.testing.assert_close(new_bias, expected[:, -1], atol=1e-8, rtol=0)
    # Without a bias the same formula holds for the Gram matrix that is not centred.
    without = removal_update(weight, moments.gram(), KEPT, relative=0.0)
    expected = torch.linalg.lstsq(inputs[:, KEPT], inputs @ weight.T).solution.T
    torch.testing.assert_close(without, expected, atol=1e-8, rtol=0)


def test_error_of_the_update_is_the_schur_complement():
    inputs, weight = correlated_inputs(300, 10), random_weight(4, 10)
    centred = moments_of(inputs).centred
    removed = torch.tensor([2, 4, 5, 8])
    schur = torch.linalg.inv(torch.linalg.inv(centred)[removed][:, removed])
    expected = float((weight[:, removed] @ schur @ weight[:, removed].T).trace())
    solved = removal_update(weight, centred, KEPT, relative=0.0)
    assert composed_error(weight, solved, KEPT, centred) == pytest.approx(expected, rel=1e-8)
    whole = torch.zeros_like(weight)
    whole[:, KEPT] = solved
    assert centred_output_error(inputs, weight - whole) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("relative", [0.0, 1e-2, 1.0])
def test_nested_solution_equals_the_closed_form_at_every_level(relative):
    weight, centred = random_weight(5, 14), moments_of(correlated_inputs(200, 14)).centred
    inputs = torch.randperm(14, generator=torch.Generator().manual_seed(3))
    solution = NestedSolution.prepare(weight, centred, inputs, relative)
    damped = centred + relative * torch.diag(centred.diagonal())
    errors = solution.damped_errors()
    for count in range(1, 15):
        kept, solved = solution.keep(count)
        assert torch.equal(kept, inputs[:count].sort().values)
        torch.testing.assert_close(solved, removal_update(weight, centred, kept, relative), atol=1e-8, rtol=0)
        assert float(errors[count]) == pytest.approx(composed_error(weight, solved, kept, damped), abs=1e-7)
    assert float(errors[0]) == pytest.approx(float((weight @ damped @ weight.T).trace()), rel=1e-10)


def test_compensation_never_loses_to_leaving_the_weights():
    for seed in range(20):
        weight, centred = random_weight(3, 12, seed), moments_of(correlated_inputs(40, 12, seed)).centred
        kept = torch.randperm(12, generator=torch.Generator().manual_seed(seed))[:5].sort().values
        solved = removal_update(weight, centred, kept)
        assert composed_error(weight, solved, kept, centred) <= composed_error(weight, weight[:, kept], kept, centred)


def _textbook_order(weight: Tensor, centred: Tensor, size: int) -> list[int]:
    """Optimal brain surgeon with explicit downdates of weights and inverse, one group a time."""
    weight = weight.clone()
    inverse = torch.linalg.inv(centred + 1e-2 * torch.diag(centred.diagonal()))
    alive, order = list(range(weight.shape[1] // size)), []
    while alive:
        costs = []
        for group in alive:
            block = slice(group * size, (group + 1) * size)
            costs.append(
                float((weight[:, block] @ torch.linalg.inv(inverse[block, block]) @ weight[:, block].T).trace())
            )
        chosen = alive.pop(min(range(len(costs)), key=costs.__getitem__))
        order.append(chosen)
        block = slice(chosen * size, (chosen + 1) * size)
        step = torch.linalg.inv(inverse[block, block]) @ inverse[block]
        weight -= weight[:, block] @ step
        inverse -= inverse[:, block] @ step
        inverse[block, block] = torch.eye(size, dtype=torch.float64)
        # The survivors are where the closed form puts them.
        if alive:
            kept = expand_groups(torch.tensor(alive), size)
            solved = removal_update(WEIGHT, centred, kept)
            torch.testing.assert_close(weight[:, kept], solved, atol=1e-8, rtol=0)
    return order


WEIGHT = random_weight(6, 24)


@pytest.mark.parametrize(("pending", "refresh"), [(32, 384), (3, 7), (1, 1), (5, 24)])
def test_channel_order_is_the_textbook_sweep(monkeypatch, pending: int, refresh: int):
    monkeypatch.setattr(removal_order, "_PENDING", pending)
    monkeypatch.setattr(removal_order, "_REFRESH", refresh)
    centred = moments_of(correlated_inputs(300, 24)).centred
    assert obs_channel_order(WEIGHT, centred).tolist() == _textbook_order(WEIGHT, centred, 1)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_group_order_is_the_textbook_sweep(size: int):
    centred = moments_of(correlated_inputs(300, 24)).centred
    assert obs_group_order(WEIGHT, centred, size).tolist() == _textbook_order(WEIGHT, centred, size)


def test_redundant_and_dead_channels_go_first():
    inputs = correlated_inputs(300, 8)
    inputs[:, 3] = 0.25  # constant: the bias replaces it
    inputs[:, 6] = inputs[:, 1]  # a copy
    weight = random_weight(4, 8)
    weight[:, 5] = 0.0  # not read
    order = obs_channel_order(weight, moments_of(inputs).centred, relative=1e-6)
    assert set(order[:3].tolist()) in ({3, 5, 6}, {3, 5, 1})


def test_magnitude_counts_every_weight_of_a_unit():
    up, down = torch.ones(3, 4), torch.ones(2, 3)
    up[0] *= 3
    down[:, 2] *= 2
    assert channel_energies(up, down).tolist() == [38.0, 6.0, 12.0]
    assert magnitude_order(channel_energies(up, down)).tolist() == [1, 2, 0]
    query, key, value, output = torch.ones(4, 4), torch.ones(4, 4), torch.ones(4, 4), torch.ones(4, 4)
    key[2:] *= 2
    assert head_energies(query, key, value, output, 2).tolist() == [32.0, 56.0]
