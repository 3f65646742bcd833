"""Every number format, from the recipe to the outputs of a real file."""

from pathlib import Path

import numpy as np
import onnx

from compressors.export.defaults import default_graph
from compressors.export.defaults import default_quantization
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from profilers.registry import get_profiler
from search.formats import alternatives
from search.formats import in_format
from search.formats import offered_formats
from search.prepared import GraphDefaults
from tests.unit.workers.test_bench import make_bench
from workers.operations.build import build_artifact
from workers.runner.operation import OperationContext


def test_every_integer_format_is_built_and_runs_on_the_device(tmp_path: Path) -> None:
    """What a job may ask for: each way to store and compute in integers, from the calibration that it has."""
    work = make_bench(tmp_path)
    capabilities = get_profiler("onnxruntime").describe()
    preferred = default_quantization("onnxruntime", saturating=capabilities.saturating_int8)
    offered = offered_formats(capabilities, GraphDefaults(quantization=preferred), None)
    everything = alternatives(offered, (32,))
    dense = Recipe.dense(len(work.network.layers)).model_copy(update={"graph": default_graph("onnxruntime", {8})})
    context = OperationContext("compute", tmp_path, lambda _: None)
    context.state["bench"] = work
    text = work.data.workload_feeds("search")[0]
    outputs, operators = {}, {}
    with get_profiler("onnxruntime").open(work.inputs.device, work.inputs.workload, pinned=False) as session:
        for number_format in [None, *everything]:
            recipe = dense if number_format is None else in_format(dense, number_format)
            artifact, _ = build_artifact(work.inputs, RecipeCandidate(recipe=recipe), context)
            name = number_format.name if number_format else "f32"
            handle = session.load(artifact)
            outputs[name] = handle.run(text)["logits"]
            operators[name] = {node.op_type for node in onnx.load(artifact.path).graph.node}
    assert list(outputs)[1:] == [
        *("int8", "int8 static", "int8 weights", "int4 weights", "int8 gptq", "int4 weights gptq")
    ]
    for name, output in outputs.items():
        assert np.abs(output - outputs["f32"]).max() < (0.6 if "int4" in name else 0.1) * np.abs(outputs["f32"]).max()
        assert ("MatMulNBits" in operators[name]) == ("weights" in name)
        assert ("QuantizeLinear" in operators[name]) == (name == "int8 static")
        assert ("DynamicQuantizeLinear" in operators[name]) == (name in {"int8", "int8 gptq"})
    assert len({output.tobytes() for output in outputs.values()}) == len(outputs)
