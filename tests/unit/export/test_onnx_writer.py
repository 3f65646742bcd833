"""What is promised of the writer beyond the numbers: bytes, shapes, names, errors, shared work."""

import hashlib
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from compressors.anatomy import describe
from compressors.export.audit import executed_operators
from compressors.export.checks import compare
from compressors.export.checks import example_feeds
from compressors.export.checks import linears
from compressors.export.checks import module_runner
from compressors.export.checks import onnx_runner
from compressors.export.defaults import default_graph
from compressors.export.fusion import expected_fusions
from compressors.export.fusion import fusions
from compressors.export.graph_choices import alternatives
from compressors.export.onnx import write_onnx
from compressors.export.simulation import stored_attention
from compressors.export.simulation import stored_feed_forward
from compressors.network import EncoderNetwork
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import GraphRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.torch_module import to_module
from infra.errors import InvalidInputError
from paretune.artifact.encoder import CompressedEncoder
from tests.unit.export.candidates import cut
from tests.unit.export.conftest import in_bits

BERT = ("bert", "sequence-classification")
ACTIVATIONS_IN_INT8 = 0.02
"""Relative error of a runtime that rounds what layers with weights of few bits read."""
Networks = dict[tuple[str, str], EncoderNetwork]


def recipe_of(graph: GraphRecipe | None = None, **quantization: object) -> Recipe:
    """The dense recipe of three layers with a graph and a quantisation."""
    update = {"graph": graph or GraphRecipe(), "quantization": QuantizationRecipe(**quantization)}  # type: ignore[arg-type]
    return Recipe.dense(3).model_copy(update=update)


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
def test_equal_recipes_give_equal_bytes(networks: Networks, tmp_path: Path, bits: int) -> None:
    network = in_bits(networks[BERT], bits)
    first = write_onnx(network, recipe_of(), tmp_path / "first.onnx")
    second = write_onnx(in_bits(networks[BERT], bits), recipe_of(), tmp_path / "second.onnx")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sha256 == hashlib.sha256(first.path.read_bytes()).hexdigest()
    assert first.size_bytes == first.path.stat().st_size
    assert first.operators == second.operators


WRITE_LARGE = """
import sys
import numpy as np
from pathlib import Path
from onnx import helper
from compressors.export.onnx.serialization import write_model
graph = helper.make_graph([], "large", [], [])
weights = {name: np.full((4096, 4096), 1.0, np.float32) for name in "abcd"}
write_model(helper.make_model(graph), weights, Path(sys.argv[1]))
"""


def test_whoever_is_killed_while_writing_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    writer = subprocess.Popen([sys.executable, "-c", WRITE_LARGE, str(path)])
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size for file in tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.001)
    writer.kill()
    assert writer.wait() == -9, "it was killed before it had ended"
    assert any(file.stat().st_size for file in tmp_path.iterdir()), "it had begun"
    assert not path.exists()


def test_the_streamed_file_is_what_the_protobuf_library_reads(networks: Networks, tmp_path: Path) -> None:
    network = in_bits(networks[BERT], 4)
    path = write_onnx(network, recipe_of(GraphRecipe(operators="standard")), tmp_path / "model.onnx").path
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    word = next(item for item in model.graph.initializer if item.name == "embeddings.word")
    assert np.array_equal(onnx.numpy_helper.to_array(word), network.embeddings.word.numpy())


def test_fewer_bits_make_smaller_files(networks: Networks, tmp_path: Path) -> None:
    sizes = [
        write_onnx(in_bits(networks[BERT], bits), recipe_of(), tmp_path / f"{bits}.onnx").size_bytes
        for bits in (32, 16, 8, 4)
    ]
    assert sizes == sorted(sizes, reverse=True)
    full, small = (
        write_onnx(networks[BERT], recipe_of(embedding_bits=bits), tmp_path / f"embedding{bits}.onnx").size_bytes
        for bits in (32, 8)
    )
    assert small < full - 2 * networks[BERT].embeddings.word.numel()


def test_tables_of_8_bits_are_unpacked_when_the_file_is_loaded(networks: Networks, tmp_path: Path) -> None:
    """Only the word table is unpacked at run time, after its few rows were looked up."""
    path = write_onnx(networks[BERT], recipe_of(embedding_bits=8), tmp_path / "model.onnx").path
    integers = [item for item in onnx.load(path).graph.initializer if item.data_type == onnx.TensorProto.INT8]
    assert len(integers) == 2
    plain = write_onnx(networks[BERT], recipe_of(), tmp_path / "plain.onnx").path
    executed, before = executed_operators(path), executed_operators(plain)
    assert executed.get("Cast", 0) == before.get("Cast", 0) + 1
    assert executed.get("Mul", 0) == before.get("Mul", 0) + 1
    assert executed["Gather"] == before["Gather"] + 1


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (BERT, ["input_ids", "attention_mask", "token_type_ids"]),
        (("distilbert", "sequence-classification"), ["input_ids", "attention_mask"]),
        (("roberta", "sequence-classification"), ["input_ids", "attention_mask"]),
    ],
)
def test_token_types_are_an_input_only_where_the_model_has_several(
    networks: Networks, tmp_path: Path, case: tuple[str, str], expected: list[str]
) -> None:
    path = write_onnx(networks[case], recipe_of(), tmp_path / "model.onnx").path
    assert [item.name for item in onnxruntime.InferenceSession(path).get_inputs()] == expected


def test_a_fixed_shape_gives_the_same_numbers_and_refuses_others(networks: Networks, tmp_path: Path) -> None:
    network = networks[BERT]
    feeds = example_feeds(network)[2]
    batch, sequence = feeds["input_ids"].shape
    free = onnx_runner(write_onnx(network, recipe_of(), tmp_path / "free.onnx").path)
    fixed = onnx_runner(write_onnx(network, recipe_of(), tmp_path / "fixed.onnx", static=(batch, sequence)).path)
    assert np.allclose(free(feeds), fixed(feeds), atol=1e-6)
    with pytest.raises(Exception, match=r"(?i)dimension"):
        fixed({name: array[:1] for name, array in feeds.items()})


def test_padding_does_not_change_the_result(networks: Networks, tmp_path: Path) -> None:
    for case, network in networks.items():
        run = onnx_runner(write_onnx(network, recipe_of(default_graph("onnxruntime", {32})), tmp_path / "m.onnx").path)
        short = example_feeds(network)[1]
        padded = {name: np.pad(array, ((0, 0), (0, 7)), constant_values=0) for name, array in short.items()}
        assert np.allclose(run(short), run(padded), atol=2e-6), case


def test_the_last_layer_computes_only_what_the_head_reads(networks: Networks, tmp_path: Path) -> None:
    network = networks[BERT]
    feeds = example_feeds(network)[3]
    whole = recipe_of(GraphRecipe(first_token_head=False))
    first = write_onnx(network, recipe_of(), tmp_path / "first.onnx")
    every = write_onnx(network, whole, tmp_path / "every.onnx")
    assert np.allclose(onnx_runner(first.path)(feeds), onnx_runner(every.path)(feeds), atol=2e-6)
    portable = recipe_of(GraphRecipe(operators="standard"))
    shapes = _inferred_shapes(write_onnx(network, portable, tmp_path / "fixed.onnx", static=(2, 32)).path)
    assert shapes["layer.1.feed_forward.activation"] == [2, 32, 64]
    assert shapes["layer.2.feed_forward.activation"] == [2, 1, 64]


def test_three_products_share_one_rounding_of_their_input(networks: Networks, tmp_path: Path) -> None:
    recipe = recipe_of(GraphRecipe(packed_qkv=False, first_token_head=False))
    artifact = write_onnx(in_bits(networks[BERT], 8), recipe, tmp_path / "model.onnx")
    assert artifact.operators["MatMulIntegerToFloat"] == 3 * 6
    assert artifact.operators["DynamicQuantizeLinear"] == 3 * 4


@pytest.mark.parametrize("removed", [(), (0,), (0, 2), (0, 1, 2)])
def test_fused_attention_is_there_once_for_each_surviving_branch(
    networks: Networks, tmp_path: Path, removed: tuple[int, ...]
) -> None:
    dense = Recipe.dense(3).model_copy(update={"graph": GraphRecipe(fused_attention=True, first_token_head=False)})
    layers = tuple(
        LayerRecipe(attention=AttentionRecipe(heads=0 if index in removed else 1), feed_forward=layer.feed_forward)
        for index, layer in enumerate(dense.layers)
    )
    recipe = dense.model_copy(update={"layers": layers})
    artifact = write_onnx(cut(networks[BERT], recipe), recipe, tmp_path / "model.onnx")
    fused = sum(count for name, count in artifact.operators.items() if name.endswith("Attention"))
    assert fused == 3 - len(removed)


def test_standard_graphs_have_no_operator_of_a_runtime(networks: Networks, tmp_path: Path) -> None:
    for bits in (32, 8, 4):
        recipe = recipe_of(default_graph("openvino", {bits}), scheme="static")
        network = in_bits(networks[BERT], bits)
        path = write_onnx(network, recipe, tmp_path / "model.onnx", feeds=example_feeds(network)).path
        assert {item.domain for item in onnx.load(path).opset_import} == {""}


def test_smoothing_brings_static_quantisation_closer(networks: Networks, tmp_path: Path) -> None:
    network = in_bits(networks[BERT], 8)
    for layer in network.layers:  # one channel that dwarfs the others, as trained encoders have
        layer.attention_norm.weight[5] *= 30
        layer.feed_forward.up.weight[:, 5] /= 30
    feeds, exact = example_feeds(network), module_runner(to_module(network))
    errors = [
        compare(onnx_runner(_write_static(network, tmp_path, alpha)), exact, feeds).relative_error
        for alpha in (0.0, 0.7)
    ]
    assert errors[1] < errors[0]


def _write_static(network: EncoderNetwork, folder: Path, alpha: float) -> Path:
    recipe = recipe_of(scheme="static", ranges="minmax", smoothing=alpha)
    return write_onnx(network, recipe, folder / "model.onnx", feeds=example_feeds(network, seed=9)).path


def test_static_quantisation_without_calibration_is_refused(networks: Networks, tmp_path: Path) -> None:
    network = in_bits(networks[BERT], 8)
    with pytest.raises(InvalidInputError, match="was not calibrated"):
        write_onnx(network, recipe_of(scheme="static"), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    assert {linear.bits for linear in linears(networks[BERT])} == {32}, "the fixture was changed"


def _inferred_shapes(path: Path) -> dict[str, list[int]]:
    """Shapes of all values of a graph of standard operators."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    return {
        item.name: [dimension.dim_value for dimension in item.type.tensor_type.shape.dim]
        for item in model.graph.value_info
    }


@pytest.mark.parametrize("bits", [32, 8])
def test_the_runtime_fuses_every_block_of_every_graph_that_a_device_may_choose(
    networks: Networks, tmp_path: Path, bits: int
) -> None:
    cases = []
    for profiler in ("onnxruntime", "openvino"):
        best = default_graph(profiler, {bits})
        cases += [(case, best) for case in networks]
        cases += [(BERT, graph) for graph in alternatives(best, rounded=bits == 8).values()]
    for case, graph in cases:
        network = in_bits(networks[case], bits)
        path = write_onnx(network, recipe_of(graph), tmp_path / "model.onnx").path
        assert fusions(executed_operators(path)) == expected_fusions(describe(network)), (case, graph)


@pytest.mark.parametrize("bits", [8, 4])
def test_openvino_runs_weights_in_blocks_whatever_their_number(networks: Networks, tmp_path: Path, bits: int) -> None:
    openvino = pytest.importorskip("openvino")
    layer = LayerRecipe(
        attention=AttentionRecipe(heads=3, bits=bits), feed_forward=FeedForwardRecipe(intermediate_size=49, bits=bits)
    )
    recipe = Recipe(
        layers=(layer,) * 3,
        quantization=QuantizationRecipe(scheme="weight_only"),
        graph=default_graph("openvino", {bits}),
    )
    network = cut(networks[BERT], recipe)
    path = write_onnx(network, recipe, tmp_path / "model.onnx").path
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    stored = module_runner(_stored(network, recipe))
    assert compare(lambda feeds: model(feeds)[0], stored, example_feeds(network)).relative_error < ACTIVATIONS_IN_INT8


def _stored(network: EncoderNetwork, recipe: Recipe) -> CompressedEncoder:
    """Return the module with the rounded weights that a file has."""
    layers = []
    for layer in network.layers:
        assert layer.attention is not None
        assert layer.feed_forward is not None
        attention = stored_attention(layer.attention, recipe.quantization)
        feed_forward = stored_feed_forward(layer.feed_forward, recipe.quantization)
        layers.append(replace(layer, attention=attention, feed_forward=feed_forward))
    return to_module(replace(network, layers=layers))
