from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from compressors.anatomy import describe
from compressors.anatomy import load_network
from compressors.anatomy import load_reference_model
from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.calibration.statistics import InputStatistics
from compressors.calibration.statistics import StoredStatistics
from compressors.export.checks import FLOAT_TOLERANCE
from compressors.export.checks import check_onnx
from compressors.export.checks import compare
from compressors.export.checks import example_feeds
from compressors.export.checks import module_runner
from compressors.export.onnx import write_onnx
from compressors.linear_algebra import composed_error
from compressors.local_error import relative_errors
from compressors.methods.merging import merge_layers
from compressors.network import EncoderNetwork
from compressors.recipe import BLOCK
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.removal import kept_channels
from compressors.removal import kept_heads
from compressors.tensors import named_linears
from compressors.tensors import named_tensors
from compressors.torch_module import to_module
from infra.errors import InvalidInputError
from tests.helpers.tiny_models import make_tiny_model
from tests.unit.compressors.conftest import FAMILIES
from tests.unit.compressors.conftest import TASKS
from tests.unit.compressors.conftest import activations
from tests.unit.compressors.conftest import make_batches
from tests.unit.compressors.recipes import UNEVEN

HEAD_SIZE = 8

READERS = {
    "bert": ("encoder.layer.{}.attention.output.dense", "encoder.layer.{}.output.dense"),
    "distilbert": ("transformer.layer.{}.attention.out_lin", "transformer.layer.{}.ffn.lin2"),
}


def _layer(heads: int | None = None, width: int | None = None, **options: object) -> LayerRecipe:
    return LayerRecipe(
        attention=AttentionRecipe(heads=heads, **options),
        feed_forward=FeedForwardRecipe(intermediate_size=width, **options),
    )


def _hide(module: torch.nn.Module, kept: Tensor, width: int) -> None:
    """Zero all inputs of a linear layer but ``kept``; with nothing kept, its whole output."""
    visible = torch.zeros(width)
    visible[kept] = 1.0
    module.register_forward_pre_hook(lambda _, inputs: inputs[0] * visible)
    if len(kept) == 0:
        module.register_forward_hook(lambda _, inputs, output: torch.zeros_like(output))


@pytest.mark.parametrize("criterion", ["obs", "magnitude"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model_type", FAMILIES)
@torch.no_grad()
def test_removing_equals_masking_in_the_library(
    model_dirs: Callable[..., Path], model_type: str, task: str, criterion: str
):
    directory = model_dirs(model_type, task)
    network = load_network(directory, task)
    batches = make_batches(directory)
    calibration = calibrate(network, batches)
    recipe = Recipe(layers=(_layer(3, 21), _layer(0, 50)), criterion=criterion, compensation="none")
    candidate = to_module(apply_recipe(network, calibration, recipe))

    reference = load_reference_model(directory, task)
    encoder = getattr(reference.model, reference.model.base_model_prefix, reference.model)
    attention, feed_forward = READERS.get(model_type, READERS["bert"])
    for index, (heads, width) in enumerate(((3, 21), (0, 50))):
        layer = network.layers[index]
        chosen = kept_heads(layer, calibration, criterion, heads)
        inputs = (chosen[:, None] * HEAD_SIZE + torch.arange(HEAD_SIZE)).flatten()
        _hide(encoder.get_submodule(attention.format(index)), inputs, 32)
        channels = kept_channels(layer, calibration, criterion, width)
        _hide(encoder.get_submodule(feed_forward.format(index)), channels, 64)
    for batch in batches:
        torch.testing.assert_close(candidate(**batch), reference(**batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_dense_recipe_changes_nothing(model_dirs: Callable[..., Path], model_type: str):
    directory = model_dirs(model_type)
    network = load_network(directory, "sequence-classification")
    calibration = calibrate(network, make_batches(directory))
    before = {name: tensor.clone() for name, tensor in named_tensors(network).items()}
    result = named_tensors(apply_recipe(network, calibration, Recipe.dense(2)))
    assert result.keys() == before.keys()
    assert all(torch.equal(result[name], before[name]) for name in before)


def test_a_recipe_gives_the_same_tensors_every_time_and_spares_the_dense_model(
    bert: EncoderNetwork, calibration: Calibration, tmp_path: Path
):
    before = {name: tensor.clone() for name, tensor in named_tensors(bert).items()}
    sparse = LayerRecipe(attention=AttentionRecipe(rank=5, sparsity=0.5, mask="sparsegpt", bits=8))
    recipe = Recipe(layers=(UNEVEN.layers[0], sparse), quantization=QuantizationRecipe(rounding="gptq"))
    calibration.save(tmp_path / "c")
    first = named_tensors(apply_recipe(bert, calibration, recipe))
    second = named_tensors(apply_recipe(bert, calibration, recipe))
    fresh = named_tensors(apply_recipe(bert, Calibration.load(tmp_path / "c"), recipe))
    assert all(torch.equal(first[name], second[name]) and torch.equal(first[name], fresh[name]) for name in first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in named_tensors(bert).items())


def test_only_the_statistics_that_a_recipe_uses_are_read(
    bert: EncoderNetwork, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Those of one layer of a large model are as large as its weights: reading all for each candidate takes minutes."""
    calibration.save(tmp_path / "c")
    stored, read = Calibration.load(tmp_path / "c"), []
    original = StoredStatistics.read

    def noted(self: StoredStatistics) -> InputStatistics:
        read.append(self.name)
        return original(self)

    monkeypatch.setattr(StoredStatistics, "read", noted)
    apply_recipe(bert, stored, Recipe.dense(2))
    assert read == []
    narrow = LayerRecipe(feed_forward=FeedForwardRecipe(intermediate_size=3))
    apply_recipe(bert, stored, Recipe(layers=(LayerRecipe(), narrow)))
    assert set(read) == {"inputs/1/feed_forward_mid"}


def test_dropped_layers_leave_the_others_alone(bert: EncoderNetwork, calibration: Calibration):
    for dropped in (LayerRecipe(removed=True), _layer(0, 0)):
        candidate = apply_recipe(bert, calibration, Recipe(layers=(dropped, LayerRecipe())))
        assert [layer.index for layer in candidate.layers] == [1]
        assert candidate.layers[0].attention is not None
        assert torch.equal(candidate.layers[0].attention.query.matrix(), bert.layers[1].attention.query.matrix())


@torch.no_grad()
def test_merging_adds_what_layers_differ_by(bert: EncoderNetwork, calibration: Calibration):
    """Layer collapse as the paper has it; the authors' notebook keeps the last layer, which is a removal."""
    merged = LayerRecipe(attention=AttentionRecipe(bits=8), merged=1)
    candidate = apply_recipe(bert, calibration, Recipe(layers=(merged, LayerRecipe(removed=True))))
    assert len(candidate.layers) == 1
    first, second = (dict(named_linears(layer)) for layer in bert.layers)
    for name, linear in named_linears(candidate.layers[0]):
        torch.testing.assert_close(
            linear.matrix(), first[name].matrix() + (second[name].matrix() - first[name].matrix())
        )
        torch.testing.assert_close(linear.bias, second[name].bias)
        assert linear.bits == (8 if name.startswith("attention") else 32)
    assert torch.equal(candidate.layers[0].attention_norm.weight, bert.layers[0].attention_norm.weight)
    three = merge_layers([bert.layers[0], bert.layers[1], bert.layers[1]])
    expected = 2 * bert.layers[1].feed_forward.up.matrix() - bert.layers[0].feed_forward.up.matrix()
    torch.testing.assert_close(three.feed_forward.up.matrix(), expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rank": 7},
        {"sparsity": 0.5},
        {"bits": 4},
        {"rank": 9, "sparsity": 0.25, "bits": 8},
    ],
)
@pytest.mark.parametrize("mask", ["wanda", "sparsegpt", "magnitude"])
@torch.no_grad()
def test_refitting_keeps_the_mean_output_and_lowers_the_error(
    bert: EncoderNetwork, calibration: Calibration, options: dict[str, object], mask: str
):
    """Every linear layer of the candidate keeps its mean output on the calibration tokens: the bias was refitted."""
    recipe = Recipe(
        layers=(_layer(2, 30, mask=mask, **options), _layer(3, 44, mask=mask, **options)),
        quantization=QuantizationRecipe(rounding="gptq"),
    )
    candidate = apply_recipe(bert, calibration, recipe)
    bare = apply_recipe(bert, calibration, recipe.model_copy(update={"compensation": "none"}))
    for index, (heads, width) in enumerate(((2, 30), (3, 44))):
        dense, layer = bert.layers[index], candidate.layers[index]
        chosen = kept_heads(dense, calibration, "obs", heads)
        kept = {
            "attention.output": ("attention_out", (chosen[:, None] * HEAD_SIZE + torch.arange(HEAD_SIZE)).flatten()),
            "feed_forward.down": ("feed_forward_mid", kept_channels(dense, calibration, "obs", width)),
        }
        originals, plain = dict(named_linears(dense)), dict(named_linears(bare.layers[index]))
        for name, linear in named_linears(layer):
            if name not in kept:
                continue
            site, inputs = kept[name]
            moments, original = calibration.at(index, site).moments(), originals[name]
            mean = linear.matrix().double() @ moments.mean[inputs] + linear.bias.double()
            expected = original.matrix().double() @ moments.mean + original.bias.double()
            torch.testing.assert_close(mean, expected, atol=1e-4, rtol=1e-4)
            errors = [
                composed_error(original.matrix().double(), version.matrix().double(), inputs, moments.centred)
                for version in (linear, plain[name])
            ]
            assert errors[0] < errors[1]


@torch.no_grad()
def test_local_errors_are_those_of_the_activations(bert: EncoderNetwork, batches: list[dict[str, Tensor]]):
    calibration = calibrate(bert, batches)
    recipe = Recipe(
        layers=(_layer(3, 40, rank=6), _layer(0, 20, sparsity=0.5, bits=4)),
        quantization=QuantizationRecipe(rounding="gptq"),
    )
    for compensation in ("least_squares", "none"):
        chosen = recipe.model_copy(update={"compensation": compensation})
        candidate = apply_recipe(bert, calibration, chosen)
        errors = relative_errors(bert, candidate, calibration, "obs")
        assert errors["1.attention.output"] == 1.0
        assert "1.attention.query" not in errors
        heads = kept_heads(bert.layers[0], calibration, "obs", 3)
        rows = (heads[:, None] * HEAD_SIZE + torch.arange(HEAD_SIZE)).flatten()
        everything = torch.arange(32)
        first = kept_channels(bert.layers[0], calibration, "obs", 40)
        second = kept_channels(bert.layers[1], calibration, "obs", 20)
        for index, name, site, outputs, inputs in (
            (0, "attention.query", "attention_in", rows, everything),
            (0, "attention.output", "attention_out", everything, rows),
            (0, "feed_forward.up", "feed_forward_in", first, everything),
            (1, "feed_forward.down", "feed_forward_mid", everything, second),
        ):
            seen = activations(bert, batches, index, site)
            old, new = dict(named_linears(bert.layers[index]))[name], dict(named_linears(candidate.layers[index]))[name]
            expected = seen @ old.matrix().double()[outputs].T + old.bias.double()[outputs]
            actual = seen[:, inputs] @ new.matrix().double().T + new.bias.double()
            error = float((actual - expected).square().sum() / expected.square().sum())
            assert errors[f"{index}.{name}"] == pytest.approx(error, rel=1e-4)


def test_a_calibration_of_another_model_is_refused(tmp_path: Path, calibration: Calibration):
    other = load_network(make_tiny_model(tmp_path, intermediate_size=48), "sequence-classification")
    with pytest.raises(InvalidInputError, match="another model"):
        apply_recipe(other, calibration, Recipe.dense(2))


def test_bits_are_recorded_and_gptq_weights_lie_on_the_grid(bert: EncoderNetwork, calibration: Calibration):
    recipe = Recipe(layers=(_layer(bits=8), _layer(bits=4)), quantization=QuantizationRecipe(rounding="gptq"))
    for layer, bits in zip(apply_recipe(bert, calibration, recipe).layers, (8, 4), strict=True):
        for _, linear in named_linears(layer):
            assert linear.bits == bits
            levels = 2 ** (bits - 1) - 1
            for block in linear.matrix().split(BLOCK if bits == 4 else linear.inputs, dim=1):
                integers = block / block.abs().amax(1, keepdim=True) * levels
                torch.testing.assert_close(integers, integers.round(), atol=1e-4, rtol=0)
    nearest = recipe.model_copy(update={"quantization": QuantizationRecipe()})
    result = apply_recipe(bert, calibration, nearest)
    assert torch.equal(result.layers[0].attention.query.matrix(), bert.layers[0].attention.query.matrix())


def test_trained_weights_replace_the_computed_ones(bert: EncoderNetwork, calibration: Calibration):
    recipe = UNEVEN.model_copy(update={"weights": "0" * 64})
    computed = apply_recipe(bert, calibration, UNEVEN)
    trained = {name: tensor + 0.25 for name, tensor in named_tensors(computed).items()}
    result = apply_recipe(bert, calibration, recipe, trained)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in named_tensors(result).items())
    assert [linear.bits for _, linear in named_linears(result.layers[1])] == [8, 8, 8, 8]
    with pytest.raises(InvalidInputError, match="trained weights"):
        apply_recipe(bert, calibration, recipe)
    with pytest.raises(InvalidInputError, match="do not fit"):
        apply_recipe(bert, calibration, Recipe.dense(2), trained)


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ((LayerRecipe(), _layer(5)), "layers.1.attention.heads"),
        ((_layer(None, 65), LayerRecipe()), "layers.0.feed_forward.intermediate_size"),
        ((_layer(rank=33), LayerRecipe()), "layers.0.attention.rank"),
        ((_layer(sparsity=0.6, pattern="2:4"), LayerRecipe()), "layers.0.attention.sparsity"),
        ((LayerRecipe(removed=True), _layer(0, 0)), "layers"),
        ((LayerRecipe(merged=1), LayerRecipe()), "layers.0.merged"),
        ((LayerRecipe(), LayerRecipe(merged=1)), "layers.1.merged"),
        ((_layer(2).model_copy(update={"merged": 1}), LayerRecipe(removed=True)), "layers.0.merged"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(bert: EncoderNetwork, calibration: Calibration, layers, field: str):
    with pytest.raises(InvalidInputError) as caught:
        apply_recipe(bert, calibration, Recipe(layers=layers))
    assert field in [error["field"] for error in caught.value.errors]
    with pytest.raises(InvalidInputError, match="3 layers"):
        apply_recipe(bert, calibration, Recipe.dense(3))


def test_taylor_without_gradients_says_what_to_do(bert: EncoderNetwork, batches: list[dict[str, Tensor]]):
    with pytest.raises(InvalidInputError, match="gradients"):
        apply_recipe(bert, calibrate(bert, batches), Recipe(layers=(_layer(2), _layer(2)), criterion="taylor"))


def _branches(limit: int, size_field: str, kind: type) -> st.SearchStrategy:
    return st.builds(
        lambda size, **rest: kind(**{size_field: size}, **rest),
        size=st.none() | st.integers(0, limit),
        rank=st.none() | st.integers(1, 32),
        sparsity=st.sampled_from([0.0, 0.5]),
        mask=st.sampled_from(["wanda", "magnitude", "sparsegpt"]),
        pattern=st.sampled_from(["unstructured", "2:4"]),
        bits=st.sampled_from([32, 8, 4]),
    )


LAYERS = st.builds(
    LayerRecipe,
    attention=_branches(4, "heads", AttentionRecipe),
    feed_forward=_branches(64, "intermediate_size", FeedForwardRecipe),
    removed=st.sampled_from([False, False, False, True]),
)
RECIPES = st.builds(
    Recipe,
    layers=st.tuples(LAYERS, LAYERS),
    criterion=st.sampled_from(["obs", "magnitude"]),
    compensation=st.sampled_from(["least_squares", "none"]),
    factorization=st.sampled_from(["whitened", "plain"]),
    quantization=st.builds(QuantizationRecipe, rounding=st.sampled_from(["nearest", "gptq"])),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipe=RECIPES)
@torch.no_grad()
def test_any_recipe_gives_a_model_of_its_shape(
    bert: EncoderNetwork, calibration: Calibration, batches: list[dict[str, Tensor]], recipe: Recipe
):
    plans = [
        (index, plan)
        for index, plan in enumerate(recipe.layers)
        if not (plan.removed or (plan.attention.heads == 0 and plan.feed_forward.intermediate_size == 0))
    ]
    if not plans:
        with pytest.raises(InvalidInputError):
            apply_recipe(bert, calibration, recipe)
        return
    candidate = apply_recipe(bert, calibration, recipe)
    anatomy = describe(candidate)
    heads = [4 if plan.attention.heads is None else plan.attention.heads for _, plan in plans]
    widths = [
        64 if plan.feed_forward.intermediate_size is None else plan.feed_forward.intermediate_size for _, plan in plans
    ]
    assert list(anatomy.heads) == heads
    assert list(anatomy.intermediate_size) == widths
    assert [layer.index for layer in candidate.layers] == [index for index, _ in plans]
    for layer, (_, plan) in zip(candidate.layers, plans, strict=True):
        for name, linear in named_linears(layer):
            branch = plan.attention if name.startswith("attention") else plan.feed_forward
            smallest = min(linear.inputs, linear.outputs)
            assert linear.rank == (branch.rank if branch.rank and branch.rank < smallest else None)
            assert linear.bits == branch.bits
            if branch.sparsity and linear.rank is None and linear.inputs % 4 == 0:
                share = float((linear.matrix() == 0).float().mean())
                assert share == pytest.approx(0.5, abs=0.03) or branch.bits == 4
    module = to_module(candidate)
    for batch in batches:
        output = module(**batch)
        assert output.shape == (len(batch["input_ids"]), 3)
        assert torch.isfinite(output).all()


def test_a_recipe_with_the_approximate_gelu_computes_that_in_torch_and_in_onnx(
    bert: EncoderNetwork, calibration: Calibration, tmp_path: Path
):
    exact = Recipe.dense(len(bert.layers))
    recipe = exact.model_copy(update={"graph": exact.graph.model_copy(update={"gelu": "tanh"})})
    candidate = apply_recipe(bert, calibration, recipe)
    assert {layer.feed_forward.activation for layer in candidate.layers if layer.feed_forward} == {"gelu_tanh"}
    write_onnx(candidate, recipe, tmp_path / "model.onnx")
    assert check_onnx(tmp_path / "model.onnx", candidate, recipe.quantization).relative_error < FLOAT_TOLERANCE
    feeds = example_feeds(bert)
    difference = compare(module_runner(to_module(candidate)), module_runner(to_module(bert)), feeds)
    assert 0 < difference.largest_difference < 5e-3
