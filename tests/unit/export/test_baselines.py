"""Baselines are what the user's one line gives, and the emitted graphs agree with a true re-export."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from compressors.anatomy import load_reference_model
from compressors.export.audit import audit
from compressors.export.baselines import build_baseline
from compressors.export.checks import example_feeds
from compressors.export.checks import module_runner
from compressors.export.checks import onnx_runner
from compressors.export.defaults import default_graph
from compressors.network import EncoderNetwork
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from infra.errors import InvalidInputError
from tests.unit.export.candidates import cut

BERT = ("bert", "sequence-classification")
Networks = dict[tuple[str, str], EncoderNetwork]


def test_baselines_of_onnx_runtime(networks: Networks, folders: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    folder = folders[BERT]
    dense = build_baseline("fp32", folder, BERT[1], tmp_path)
    written = dense.path.stat().st_mtime_ns
    int8 = build_baseline("int8_one_liner", folder, BERT[1], tmp_path)
    hinted = build_baseline("openvino_bf16", folder, BERT[1], tmp_path)
    assert (hinted.path, hinted.precision, dense.precision) == (dense.path, "bf16", "f32")
    assert dense.path.stat().st_mtime_ns == written, "the dense export is made once"
    assert int8.size_bytes == int8.path.stat().st_size < dense.size_bytes
    reference = module_runner(load_reference_model(folder, BERT[1]))
    for feeds in example_feeds(networks[BERT]):
        assert np.allclose(onnx_runner(dense.path)(feeds), reference(feeds), atol=1e-5)
    outputs = [item.name for item in onnxruntime.InferenceSession(int8.path).get_outputs()]
    assert outputs == ["logits"]


@pytest.mark.parametrize("saturating", [False, True])
def test_the_static_baseline_has_calibrated_products_within_the_bits_of_the_device(
    networks: Networks, folders: dict[tuple[str, str], Path], tmp_path: Path, saturating: bool
) -> None:
    feeds = example_feeds(networks[BERT])
    seen = [{name: array[:1] for name, array in feed.items()} | {"unknown": feed["input_ids"]} for feed in feeds]
    built = build_baseline("int8_static", folders[BERT], BERT[1], tmp_path, iter(seen), saturating=saturating)
    dense = tmp_path / "fp32.onnx"
    assert built.size_bytes == built.path.stat().st_size < dense.stat().st_size
    model = onnx.load(built.path)
    count = Counter(node.op_type for node in model.graph.node)
    assert count["DynamicQuantizeLinear"] == 0
    assert count["QuantizeLinear"] > len(networks[BERT].layers)
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scales = [node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert any(tensors[name].ndim == 1 and tensors[name].size > 1 for name in scales), "a scale for each channel"
    weights = [tensor for tensor in tensors.values() if tensor.dtype == np.int8 and tensor.ndim == 2]
    assert max(int(np.abs(tensor.astype(int)).max()) for tensor in weights) == (64 if saturating else 127)
    for feed in feeds:
        exact = onnx_runner(dense)(feed)
        assert np.abs(onnx_runner(built.path)(feed) - exact).max() < 0.2 * np.abs(exact).max()


def test_impossible_baselines_are_refused(folders: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    (tmp_path / "fp32.onnx").touch()
    with pytest.raises(InvalidInputError, match="no baseline"):
        build_baseline("fp8", folders[BERT], BERT[1], tmp_path)
    for name in ("int8_static", "openvino_int8"):
        with pytest.raises(InvalidInputError, match=f"{name} needs calibration"):
            build_baseline(name, folders[BERT], BERT[1], tmp_path)


def test_emitted_graph_equals_the_traced_one(networks: Networks) -> None:
    recipe = Recipe(
        layers=(
            LayerRecipe(attention=AttentionRecipe(heads=1, bits=8)),
            LayerRecipe(attention=AttentionRecipe(heads=0), feed_forward=FeedForwardRecipe(rank=4, bits=8)),
            LayerRecipe(feed_forward=FeedForwardRecipe(intermediate_size=16)),
        ),
        graph=default_graph("onnxruntime", {8}),
    )
    found = audit(cut(networks[BERT], recipe), recipe)
    assert found.check.relative_error < 1e-5
    assert found.deployed["MatMulIntegerToFloat"] + found.deployed["DynamicQuantizeMatMul"] == 8
    assert sum(found.emitted.values()) < sum(found.traced.values()), "the emitted graph is the leaner one"
