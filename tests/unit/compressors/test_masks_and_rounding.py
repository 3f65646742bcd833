import pytest
import torch
from torch import Tensor

from compressors.linear_algebra import reconstruction_error
from compressors.methods.least_squares import removal_update
from compressors.methods.masks import magnitude_mask
from compressors.methods.masks import sparsegpt
from compressors.methods.masks import wanda_mask
from compressors.methods.rounding import gptq
from tests.unit.compressors.data import correlated_inputs
from tests.unit.compressors.data import moments_of
from tests.unit.compressors.data import random_weight

CASES = 40


def test_magnitude_and_wanda_keep_the_right_share():
    weight = random_weight(6, 20)
    mask = magnitude_mask(weight, 0.55)
    assert int((~mask).sum()) == int(weight.numel() * 0.55)
    assert weight[mask].abs().min() >= weight[~mask].abs().max()
    moment = torch.arange(1.0, 21.0, dtype=torch.float64)
    mask = wanda_mask(weight, moment, 0.55)
    assert ((~mask).sum(1) == 11).all()
    score = weight.abs() * moment.sqrt()
    for row in range(6):
        assert score[row][mask[row]].min() >= score[row][~mask[row]].max()


@pytest.mark.parametrize("columns", [16, 18])
def test_two_of_four(columns: int):
    weight, moments = random_weight(5, columns), moments_of(correlated_inputs(100, columns))
    masks = (
        magnitude_mask(weight, 0.5, "2:4"),
        wanda_mask(weight, moments.second_moment(), 0.5, "2:4"),
        sparsegpt(weight, moments.centred, 0.5, "2:4")[1],
    )
    for mask in masks:
        assert (mask[:, :16].reshape(5, 4, 4).sum(2) == 2).all()
        assert mask[:, 16:].all()


def test_sparsegpt_sits_between_the_exact_solve_and_no_update():
    better = 0
    for seed in range(CASES):
        weight, centred = random_weight(8, 48, seed), moments_of(correlated_inputs(300, 48, seed)).centred
        mask = magnitude_mask(weight, 0.5)
        swept, used = sparsegpt(weight, centred, 0.5, mask=mask, relative=0.0)
        assert torch.equal(used, mask)
        assert (swept[~mask] == 0).all()
        exact = torch.zeros_like(weight)
        for row in range(8):
            kept = mask[row].nonzero()[:, 0]
            exact[row, kept] = removal_update(weight[row : row + 1], centred, kept, relative=0.0)[0]
        least, sweep, nothing = (
            reconstruction_error(weight - candidate, centred) for candidate in (exact, swept, weight * mask)
        )
        assert least <= sweep * (1 + 1e-9)
        better += sweep <= nothing
    assert better >= 0.95 * CASES


def test_sparsegpt_is_exact_where_all_zeros_come_first():
    weight, centred = random_weight(4, 12), moments_of(correlated_inputs(100, 12)).centred
    mask = (torch.arange(12) >= 5).expand(4, 12)
    swept, _ = sparsegpt(weight, centred, 0.0, mask=mask)
    solved = removal_update(weight, centred, torch.arange(5, 12))
    torch.testing.assert_close(swept[:, 5:], solved, atol=1e-8, rtol=0)


def test_sparsegpt_blocks_do_not_matter_for_a_given_mask(monkeypatch):
    weight, centred = random_weight(4, 30), moments_of(correlated_inputs(100, 30)).centred
    mask = magnitude_mask(weight, 0.4)
    whole, _ = sparsegpt(weight, centred, 0.4, mask=mask)
    monkeypatch.setattr("compressors.methods.masks._BLOCK", 7)
    blocks, _ = sparsegpt(weight, centred, 0.4, mask=mask)
    torch.testing.assert_close(whole, blocks, atol=1e-9, rtol=0)


@pytest.mark.parametrize("bits", [4, 8])
def test_gptq_beats_rounding_to_nearest(bits: int):
    better = 0
    for seed in range(CASES):
        weight, centred = random_weight(4, 24, seed), moments_of(correlated_inputs(150, 24, seed)).centred
        swept, nearest = gptq(weight, centred, bits), to_nearest(weight, bits)
        better += reconstruction_error(weight - swept, centred) <= reconstruction_error(weight - nearest, centred)
    assert better >= 0.95 * CASES


def to_nearest(weight: Tensor, bits: int) -> Tensor:
    scale = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    return (weight / scale).round() * scale


def test_gptq_in_blocks_beats_one_scale_for_a_channel():
    """An outlier widens the steps of its own block only."""
    better = 0
    for seed in range(CASES):
        weight, centred = random_weight(4, 96, seed), moments_of(correlated_inputs(300, 96, seed)).centred
        weight[:, 40] *= 8
        blocks, whole = gptq(weight, centred, 4, size=32), gptq(weight, centred, 4)
        better += reconstruction_error(weight - blocks, centred) < reconstruction_error(weight - whole, centred)
    assert better >= 0.95 * CASES


def test_sweeps_do_not_matter_for_gptq_in_blocks(monkeypatch):
    weight, centred = random_weight(4, 100), moments_of(correlated_inputs(300, 100)).centred
    whole = gptq(weight, centred, 4, size=32)
    monkeypatch.setattr("compressors.methods.rounding.SWEEP", 32)
    torch.testing.assert_close(whole, gptq(weight, centred, 4, size=32), atol=1e-9, rtol=0)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_second_quantisation_finds_the_same_integers(bits: int):
    levels = 2 ** (bits - 1) - 1
    for seed in range(10):
        weight, centred = random_weight(6, 20, seed), moments_of(correlated_inputs(100, 20, seed)).centred
        weight[3] = 0.0
        mask = magnitude_mask(weight, 0.3)
        masked = weight * mask
        for result, given in ((gptq(weight, centred, bits), weight), (gptq(masked, centred, bits, mask), masked)):
            scale = given.abs().amax(1, keepdim=True) / levels
            integers = result / torch.where(scale > 0, scale, 1.0)
            torch.testing.assert_close(integers, integers.round(), atol=1e-9, rtol=0)
            stored = result.float()  # what an exporter sees
            scale = stored.abs().amax(1, keepdim=True) / levels
            again = (stored / torch.where(scale > 0, scale, 1.0)).round()
            torch.testing.assert_close(again.double(), integers.round(), atol=0, rtol=0)
        assert (gptq(masked, centred, bits, mask)[~mask] == 0).all()
