"""Fusions of measured models, counted in the graphs that ONNX Runtime really executes."""

import pytest

from compressors.anatomy import describe
from compressors.export.fusion import expected_fusions
from compressors.recipe import AttentionRecipe
from compressors.recipe import BaselineCandidate
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import GraphRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from infra.errors import InvalidModelError
from profilers.backends.onnxruntime import OnnxRuntimeHandle
from profilers.types import Effort
from profilers.types import Measurement
from tests.unit.workers.test_bench import context
from tests.unit.workers.test_bench import on_device
from tests.unit.workers.test_bench import unfused
from workers.operations.bench import Bench
from workers.operations.build import build
from workers.operations.fusion import NOT_COUNTED
from workers.operations.measure import measure
from workers.runner.operation import OperationContext
from workers.stages.measure import fusions_of

WHOLE = LayerRecipe()
NO_ATTENTION = LayerRecipe(attention=AttentionRecipe(heads=0))
NO_FEED_FORWARD = LayerRecipe(feed_forward=FeedForwardRecipe(intermediate_size=0))
NOTHING = LayerRecipe(attention=AttentionRecipe(heads=0), feed_forward=FeedForwardRecipe(intermediate_size=0))
SHAPES = {
    "whole": (WHOLE, WHOLE),
    "a layer less": (WHOLE, LayerRecipe(removed=True)),
    "a layer of nothing": (NOTHING, WHOLE),
    "no attention": (NO_ATTENTION, WHOLE),
    "no feed-forward": (WHOLE, NO_FEED_FORWARD),
    "one branch each": (NO_FEED_FORWARD, NO_ATTENTION),
    "low rank": (WHOLE.with_branches(rank=8), WHOLE),
}
FORMATS = {
    "dynamic": (8, QuantizationRecipe(reduce_range=True)),
    "static": (8, QuantizationRecipe(scheme="static", reduce_range=True)),
    "int8 attention": (8, QuantizationRecipe(scheme="static", attention_products=True)),
    "weights": (8, QuantizationRecipe(scheme="weight_only")),
    "4 bits": (4, QuantizationRecipe(scheme="weight_only", embedding_bits=8)),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return on_device(tmp_path_factory.mktemp("fusion"), "onnxruntime")


@pytest.fixture(scope="module")
def device(work: Bench) -> OperationContext:
    return OperationContext("device", work.inputs.work, lambda _: None)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of eight blocks: times are not what these tests are about."""
    effort = Effort(half_width=10.0, seconds=2.0, min_blocks=8, retreats=0)
    monkeypatch.setattr("workers.operations.measure._effort", lambda *_: effort)


def measured(work: Bench, device: OperationContext, candidate: RecipeCandidate | BaselineCandidate) -> Measurement:
    """Build and measure a candidate as the stages do."""
    given = {"inputs": work.inputs.model_dump(mode="json"), "candidate": candidate.model_dump(mode="json")}
    prepared = {"anatomy": work.anatomy.model_dump(mode="json")}
    arguments = {
        "inputs": given["inputs"],
        "artifact": build(given, context(work))["artifact"],
        "expected_fusions": fusions_of(prepared, given["candidate"]),
        "give_up_above": None,
        "max_seconds": 2.0,
    }
    return Measurement.model_validate(measure(arguments, device)["measurement"])


def recipe(layers: tuple[LayerRecipe, ...], bits: int = 32, **settings: object) -> RecipeCandidate:
    return RecipeCandidate(recipe=Recipe(layers=tuple(layer.with_branches(bits=bits) for layer in layers), **settings))


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_are_counted_from_the_recipe(work: Bench, device: OperationContext, shape: str) -> None:
    candidate = recipe(SHAPES[shape])
    found = measured(work, device, candidate)
    assert found.fusion_parity is True, found.fusions
    network = work.candidate_network(candidate.recipe)
    assert found.fusions.expected == expected_fusions(work.anatomy, candidate.recipe)
    assert found.fusions.expected["norms"] == 1 + 2 * len(network.layers)
    assert found.fusions.expected["attentions"] == sum(layer.attention is not None for layer in network.layers)
    assert found.fusions.reference_found == {"norms": 5, "attentions": 2, "activations": 2}
    assert expected_fusions(describe(network))["norms"] == found.fusions.found["norms"]


@pytest.mark.parametrize("name", FORMATS)
def test_in_every_number_format(work: Bench, device: OperationContext, name: str) -> None:
    bits, quantization = FORMATS[name]
    for graph in (GraphRecipe(), GraphRecipe(layout="sequence_first", gelu="tanh", merged_keys=True)):
        found = measured(work, device, recipe((WHOLE, NO_FEED_FORWARD), bits, quantization=quantization, graph=graph))
        assert found.fusion_parity is True, (graph, found.fusions)


@pytest.mark.parametrize("name", ["fp32", "int8_one_liner", "int8_static"])
def test_of_baselines_too(work: Bench, device: OperationContext, name: str) -> None:
    found = measured(work, device, BaselineCandidate(name=name))
    assert found.fusion_parity is True, found.fusions
    assert found.fusions.expected == found.fusions.reference_expected


def test_a_block_that_the_runtime_does_not_fuse_excludes_the_model(
    work: Bench, device: OperationContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressors.export.onnx.feed_forward.emit_activation", unfused)
    found = measured(work, device, recipe((NO_ATTENTION, NO_ATTENTION)))
    assert found.fusion_parity is False
    assert found.fusions.found["activations"] == 0
    assert found.fusions.reference_complete
    assert not found.fusions.complete


def test_a_model_whose_operators_cannot_be_counted_keeps_its_measurement(
    work: Bench, device: OperationContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: OnnxRuntimeHandle) -> dict[str, int]:
        raise InvalidModelError("no space left", hint="Make room.")

    measured(work, device, recipe((WHOLE, WHOLE)))  # the reference is counted once
    monkeypatch.setattr(OnnxRuntimeHandle, "operators", full)
    found = measured(work, device, recipe((WHOLE, WHOLE)))
    assert (found.fusion_parity, found.fusions) == (None, None)
    assert found.fusion_unknown == NOT_COUNTED
    device.state.clear()  # nor can those of the reference be
    found = measured(work, device, recipe((WHOLE, WHOLE)))
    assert (found.fusion_parity, found.fusion_unknown) == (None, NOT_COUNTED)


def test_a_model_whose_activation_is_not_known_is_judged_by_what_is(work: Bench) -> None:
    old = work.anatomy.model_copy(update={"activation": None})
    assert expected_fusions(old) == {"norms": 5, "attentions": 2}
    assert expected_fusions(work.anatomy.model_copy(update={"activation": "relu"}))["activations"] == 0
