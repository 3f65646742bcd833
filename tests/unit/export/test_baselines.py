"""Baselines are what the user's one line gives, and the emitted graphs agree with a true re-export."""

from pathlib import Path

import numpy as np
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
    assert build_baseline("openvino_bf16", folder, BERT[1], tmp_path).path == dense.path
    assert dense.path.stat().st_mtime_ns == written, "the dense export is made once"
    assert int8.size_bytes == int8.path.stat().st_size < dense.size_bytes
    reference = module_runner(load_reference_model(folder, BERT[1]))
    for feeds in example_feeds(networks[BERT]):
        assert np.allclose(onnx_runner(dense.path)(feeds), reference(feeds), atol=1e-5)
    outputs = [item.name for item in onnxruntime.InferenceSession(int8.path).get_outputs()]
    assert outputs == ["logits"]


def test_impossible_baselines_are_refused(folders: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    (tmp_path / "fp32.onnx").touch()
    with pytest.raises(InvalidInputError, match="no baseline"):
        build_baseline("fp8", folders[BERT], BERT[1], tmp_path)
    with pytest.raises(InvalidInputError, match="calibration"):
        build_baseline("openvino_int8", folders[BERT], BERT[1], tmp_path)


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
