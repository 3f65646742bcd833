"""One scale and one shift for each channel: the least squares of the textbook, and no further than others agree."""

import pytest
import torch
from torch import Tensor

from compressors.methods.channel_regression import ChannelSums
from compressors.methods.channel_regression import refit_channels

WEIGHTS = torch.linspace(0.5, 2.0, 60)


def sums(inputs: Tensor, residuals: Tensor, weights: Tensor) -> ChannelSums:
    found = ChannelSums.empty(inputs.shape[1])
    half = len(inputs) // 2
    for rows in (slice(0, half), slice(half, None)):
        found.add(inputs[rows].float(), residuals[rows].float(), weights[rows])
    return found


def example(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(60, 3, generator=generator, dtype=torch.float64) * torch.tensor([0.5, 1.0, 3.0]) + 0.7
    noise = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    return inputs, inputs * torch.tensor([0.3, -0.2, 0.1]) + torch.tensor([1.0, 0.0, -2.0]) + 0.3 * noise


def ridge(inputs: Tensor, residuals: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Solve the normal equations of ``[x, 1]`` channel by channel, the damping on the scale alone."""
    mean = (WEIGHTS[:, None] * inputs).sum(0) / WEIGHTS.sum()
    median = (WEIGHTS[:, None] * (inputs - mean).square()).sum(0).median()
    solved = []
    for channel in range(inputs.shape[1]):
        design = torch.stack([inputs[:, channel], torch.ones(60, dtype=torch.float64)], 1)
        weighted = design * WEIGHTS[:, None]
        penalty = torch.diag(torch.tensor([damping * float(median), 0.0], dtype=torch.float64))
        solved.append(torch.linalg.solve(weighted.T @ design + penalty, weighted.T @ residuals[:, channel]))
    scale, shift = torch.stack(solved, 1)
    return scale, shift


def test_the_fit_solves_the_normal_equations_of_every_channel() -> None:
    inputs, residuals = example()
    same = sums(inputs, residuals, WEIGHTS)  # held-out rows that agree entirely: the whole step, the least damping
    found = refit_channels(same, same)
    scale, shift = ridge(inputs, residuals, 1e-2)
    torch.testing.assert_close(found.scale, scale, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.shift, shift, rtol=1e-4, atol=1e-5)
    left = (WEIGHTS[:, None] * (residuals - scale * inputs - shift).square()).sum()
    assert found.after == pytest.approx(float(left), rel=1e-3)
    assert found.before == pytest.approx(float((WEIGHTS[:, None] * residuals.square()).sum()), rel=1e-5)


def test_the_step_is_as_long_as_is_best_for_other_rows() -> None:
    inputs, residuals = example()
    fitted, held = sums(inputs, residuals, WEIGHTS), sums(inputs, 0.4 * residuals, WEIGHTS)
    found = refit_channels(fitted, held)
    errors = [held.error(found.scale * factor, found.shift * factor) for factor in (0.9, 1.0, 1.1)]
    assert errors[1] == min(errors)
    assert errors[1] == pytest.approx(found.after)
    assert found.after < found.before


def test_nothing_moves_where_other_rows_disagree_or_are_too_few() -> None:
    inputs, residuals = example()
    fitted = sums(inputs, residuals, WEIGHTS)
    few = sums(inputs[:8], residuals[:8], torch.ones(8))
    for held in (sums(inputs, -residuals, WEIGHTS), few):
        found = refit_channels(fitted, held)
        assert not found.scale.any()
        assert not found.shift.any()
        assert found.after == found.before


def test_a_channel_without_variance_gets_a_shift_only() -> None:
    inputs, residuals = example()
    inputs[:, 1] = 0.0
    same = sums(inputs, residuals, WEIGHTS)
    found = refit_channels(same, same)
    assert found.scale[1] == 0
    assert float(found.shift[1]) == pytest.approx(float((WEIGHTS * residuals[:, 1]).sum() / WEIGHTS.sum()), rel=1e-4)
