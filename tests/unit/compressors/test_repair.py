"""Repair: fitted on some text, judged on other text, never worse."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.export.onnx import write_onnx
from compressors.methods.channel_regression import ChannelSums
from compressors.methods.channel_regression import refit_channels
from compressors.methods.regression import Pairs
from compressors.methods.regression import refit
from compressors.network import EncoderNetwork
from compressors.options.scoring import divergences
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.repair.sequential import EVERYTHING
from compressors.repair.sequential import Repair
from compressors.repair.sequential import repair_sequentially
from compressors.repair.walk import Parts
from compressors.tensors import named_tensors
from compressors.torch_module import to_module
from infra.errors import InvalidInputError
from tests.unit.compressors.data import correlated_inputs
from tests.unit.compressors.data import random_weight

MATRICES: Parts = frozenset({"matrices"})
NORMALISATIONS: Parts = frozenset({"normalisations"})


def random_batches(network: EncoderNetwork, count: int, seed: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    vocabulary = network.embeddings.word.shape[0]
    mask = torch.ones(16, 12, dtype=torch.int64)
    mask[3, 7:] = 0
    return [
        {"input_ids": torch.randint(4, vocabulary, (16, 12), generator=generator), "attention_mask": mask}
        for _ in range(count)
    ]


def smaller(network: EncoderNetwork, **attention: object) -> Recipe:
    layer = LayerRecipe(
        attention=AttentionRecipe.model_validate({"heads": 1, **attention}),
        feed_forward=FeedForwardRecipe(intermediate_size=8),
    )
    return Recipe(layers=tuple(layer for _ in network.layers))


def pairs(inputs: Tensor, targets: Tensor) -> Pairs:
    found = Pairs.empty(inputs.shape[1], targets.shape[1])
    found.add(inputs, targets)
    return found


def test_refit_finds_the_matrix_behind_the_targets():
    inputs, weight, bias = correlated_inputs(400, 6), random_weight(4, 6), random_weight(1, 4, seed=3)[0]
    targets = inputs @ weight.T + bias
    start, zero = weight + 0.3 * random_weight(4, 6, seed=2), torch.zeros(4, dtype=torch.float64)
    held = pairs(inputs[300:], targets[300:])
    fit = refit(start, zero, pairs(inputs[:300], targets[:300]), held)
    rest = targets[300:] - inputs[300:] @ fit.weight.T - fit.bias
    assert fit.after == pytest.approx(float(rest.square().sum()), rel=1e-6, abs=1e-6)
    assert fit.after < 0.01 * fit.before


def test_refit_does_not_move_where_other_rows_disagree():
    inputs, weight, bias = correlated_inputs(200, 6), random_weight(4, 6), torch.zeros(4, dtype=torch.float64)
    wrong = pairs(inputs[:100], -(inputs[:100] @ weight.T) + 5)
    fit = refit(weight, bias, wrong, pairs(inputs[100:], inputs[100:] @ weight.T))
    assert torch.equal(fit.weight, weight)
    assert torch.equal(fit.bias, bias)


def test_repair_brings_outputs_on_new_text_closer(bert: EncoderNetwork, calibration: Calibration):
    recipe = smaller(bert)
    candidate = apply_recipe(bert, calibration, recipe)
    result = repair_sequentially(bert, candidate, calibration, recipe, random_batches(bert, 16, seed=5))
    assert result.after < result.before
    new = random_batches(bert, 8, seed=6)

    def divergence(network: EncoderNetwork) -> float:
        dense, small = to_module(bert), to_module(network)
        found = [divergences(dense(**batch), small(**batch), classifier=True) for batch in new]
        return float(torch.cat(found).mean())

    with torch.no_grad():
        assert divergence(result.network) < divergence(candidate)


def test_repair_is_deterministic_and_spares_the_candidate(bert: EncoderNetwork, calibration: Calibration):
    recipe = smaller(bert, bits=8)
    candidate = apply_recipe(bert, calibration, recipe)
    copies = {name: tensor.clone() for name, tensor in named_tensors(candidate).items()}
    first, second = (
        named_tensors(
            repair_sequentially(bert, candidate, calibration, recipe, random_batches(bert, 8, seed=5)).network
        )
        for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(tensor, copies[name]) for name, tensor in named_tensors(candidate).items())
    assert first.keys() == copies.keys()


@pytest.mark.parametrize("attention", [{"sparsity": 0.5}, {"rank": 4}])
def test_zeros_and_factors_stay(bert: EncoderNetwork, calibration: Calibration, attention: dict[str, object]):
    recipe = smaller(bert, **attention)
    candidate = apply_recipe(bert, calibration, recipe)
    result = repair_sequentially(bert, candidate, calibration, recipe, random_batches(bert, 8, seed=5))
    for before, after in zip(candidate.layers, result.network.layers, strict=True):
        assert before.attention is not None
        assert after.attention is not None
        assert torch.equal(before.attention.query.matrix(), after.attention.query.matrix())
        assert before.attention.query.rank == after.attention.query.rank


def test_removed_branches_and_layers_are_walked_over(bert: EncoderNetwork, calibration: Calibration):
    layers = [LayerRecipe() for _ in bert.layers]
    layers[0] = LayerRecipe(removed=True)
    layers[-1] = LayerRecipe(attention=AttentionRecipe(heads=0))
    recipe = Recipe(layers=tuple(layers))
    candidate = apply_recipe(bert, calibration, recipe)
    result = repair_sequentially(bert, candidate, calibration, recipe, random_batches(bert, 8, seed=5))
    assert [layer.index for layer in result.network.layers] == [layer.index for layer in candidate.layers]
    assert result.network.layers[-1].attention is None
    assert result.after <= result.before


def test_what_makes_it_worse_is_not_kept(
    bert: EncoderNetwork, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
):
    recipe = smaller(bert)
    candidate = apply_recipe(bert, calibration, recipe)
    torch.manual_seed(0)  # by luck, what spoils it might be good for it

    def spoil(weight: Tensor, bias: Tensor, *rest: object, **options: object) -> object:
        return replace(refit(weight, bias, *rest, **options), bias=bias.double() + 3 * torch.randn(len(bias)))  # type: ignore[arg-type]

    def spoil_channels(fitted: ChannelSums, held: ChannelSums) -> object:
        return replace(refit_channels(fitted, held), shift=3 * torch.randn(len(fitted.inputs)))

    monkeypatch.setattr("compressors.repair.walk.refit", spoil)
    monkeypatch.setattr("compressors.repair.walk.refit_channels", spoil_channels)
    result = repair_sequentially(bert, candidate, calibration, recipe, random_batches(bert, 8, seed=5))
    assert result.network is candidate
    assert not result.kept
    assert result.after == result.before


def test_matrices_and_normalisations_together_come_closest(bert: EncoderNetwork, calibration: Calibration):
    recipe = smaller(bert)
    candidate = apply_recipe(bert, calibration, recipe)
    found = {
        parts: repair_sequentially(bert, candidate, calibration, recipe, random_batches(bert, 16, seed=5), parts)
        for parts in (EVERYTHING, MATRICES, NORMALISATIONS)
    }
    assert found[EVERYTHING].after < min(found[MATRICES].after, found[NORMALISATIONS].after)
    assert found[EVERYTHING].facts() == {
        "kept": True,
        "before": found[EVERYTHING].before,
        "after": found[EVERYTHING].after,
    }
    for parts, name in ((MATRICES, "norm"), (NORMALISATIONS, "")):  # norms stay; everything but norms stays
        before, after = named_tensors(candidate), named_tensors(found[parts].network)
        others = [key for key in before if ("norm" in key) == bool(name) and "value.bias" not in key]
        same = [torch.equal(before[key], after[key]) for key in others if "output.bias" not in key]
        assert all(same)


def test_normalisations_that_are_off_are_put_right(bert: EncoderNetwork, calibration: Calibration):
    """Nothing else is different, so the least squares of every channel has the dense scale and shift as its answer."""
    generator = torch.Generator().manual_seed(3)
    layers = []
    for layer in bert.layers:
        norms = {}
        for name in ("attention_norm", "feed_forward_norm"):
            norm = getattr(layer, name)
            change = 1 + 0.3 * torch.rand(len(norm.weight), generator=generator)
            norms[name] = replace(norm, weight=norm.weight * change, bias=norm.bias + 0.2)
        layers.append(replace(layer, **norms))
    wrong, batches = replace(bert, layers=layers), random_batches(bert, 8, seed=5)
    recipe = Recipe.dense(len(bert.layers))
    result = repair_sequentially(bert, wrong, calibration, recipe, batches, NORMALISATIONS)
    assert result.after < 1e-3 * result.before
    for dense, off, mended in zip(bert.layers, wrong.layers, result.network.layers, strict=True):
        for name in ("attention_norm", "feed_forward_norm"):
            wanted, before, after = (getattr(layer, name) for layer in (dense, off, mended))
            for field in ("weight", "bias"):
                left = (getattr(after, field) - getattr(wanted, field)).norm()
                assert left < 0.1 * (getattr(before, field) - getattr(wanted, field)).norm()


def test_a_normalisation_stands_in_for_the_layers_that_were_removed_behind_it(
    bert: EncoderNetwork, calibration: Calibration
):
    recipe = Recipe(layers=(*(LayerRecipe() for _ in bert.layers[1:]), LayerRecipe(removed=True)))
    candidate = apply_recipe(bert, calibration, recipe)
    batches = random_batches(bert, 16, seed=5)
    repaired = repair_sequentially(bert, candidate, calibration, recipe, batches, NORMALISATIONS).network
    last = candidate.layers[-1].feed_forward_norm
    assert not torch.equal(repaired.layers[-1].feed_forward_norm.weight, last.weight)
    assert all(
        torch.equal(getattr(after, name).weight, getattr(before, name).weight)
        for before, after in zip(candidate.layers[:-1], repaired.layers[:-1], strict=True)
        for name in ("attention_norm", "feed_forward_norm")
    )  # what comes before the gap is as the dense model has it
    with torch.no_grad():
        new = random_batches(bert, 4, seed=6)
        wanted, before, after = (
            torch.cat([to_module(network).encode(**batch)[:, 0] for batch in new])
            for network in (bert, candidate, repaired)
        )
    assert (after - wanted).square().sum() < (before - wanted).square().sum()


def test_files_hold_the_refitted_normalisations(bert: EncoderNetwork, calibration: Calibration, tmp_path: Path):
    recipe = smaller(bert)
    candidate = apply_recipe(bert, calibration, recipe)
    batches = random_batches(bert, 8, seed=5)
    repaired = repair_sequentially(bert, candidate, calibration, recipe, batches, NORMALISATIONS).network
    write_onnx(repaired, recipe, tmp_path / "model.onnx", feeds=None)
    in_file = {item.name: numpy_helper.to_array(item) for item in onnx.load(tmp_path / "model.onnx").graph.initializer}
    held = [array for array in in_file.values() if array.shape == (bert.hidden_size,)]
    for layer, before in zip(repaired.layers, candidate.layers, strict=True):
        for name in ("attention_norm", "feed_forward_norm"):
            norm = getattr(layer, name)
            assert not torch.equal(norm.weight, getattr(before, name).weight)
            for tensor in (norm.weight, norm.bias):
                assert any(np.array_equal(array, tensor.numpy()) for array in held)
    with torch.no_grad():
        expected = to_module(repaired)(**batches[0]).numpy()
    feeds = {name: tensor.numpy() for name, tensor in batches[0].items()}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = {item.name for item in session.get_inputs()}
    feeds |= {"token_type_ids": np.zeros_like(feeds["input_ids"])} if "token_type_ids" in names else {}
    np.testing.assert_allclose(session.run(None, feeds)[0], expected, atol=1e-4)


def test_too_little_text_is_refused(bert: EncoderNetwork, calibration: Calibration):
    recipe = smaller(bert)
    with pytest.raises(InvalidInputError, match="at least"):
        repair_sequentially(bert, bert, calibration, recipe, random_batches(bert, 3, seed=5))


def test_the_repair_of_merged_layers_begins_with_the_first_of_them_alone(
    bert: EncoderNetwork, calibration: Calibration
):
    """The second hardly does anything. From the merged weights, which are the second's, there is no way back."""
    second = copy.deepcopy(bert.layers[1])
    assert second.attention is not None
    assert second.feed_forward is not None
    for linear in (second.attention.output, second.feed_forward.down):
        linear.weight, linear.bias = 1e-3 * linear.matrix(), torch.zeros(linear.outputs)
    network = replace(bert, layers=[bert.layers[0], second])
    batches = random_batches(bert, 8, seed=5)

    def repair(merged: int) -> tuple[EncoderNetwork, Repair]:
        first = LayerRecipe(merged=merged).with_branches(bits=8)
        recipe = Recipe(layers=(first, LayerRecipe(removed=True)))
        candidate = apply_recipe(network, calibration, recipe)
        return candidate, repair_sequentially(network, candidate, calibration, recipe, batches)

    (merged, mended), (_, expected) = repair(1), repair(0)
    assert mended.kept
    assert mended.before > expected.before
    assert mended.after == expected.after
    found, wanted, before = (named_tensors(entry) for entry in (mended.network, expected.network, merged))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert not torch.equal(found["layers.0.attention.query.weight"], before["layers.0.attention.query.weight"])
