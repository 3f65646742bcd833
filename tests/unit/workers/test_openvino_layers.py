"""What OpenVINO says about the layers that it executes, on models that jobs build for it."""

import math
import platform

import numpy as np
import pytest

from compressors.export.onnx.context import Context
from compressors.recipe import BaselineCandidate
from compressors.recipe import GraphRecipe
from compressors.recipe import QuantizationRecipe
from profilers.isa import this_cpu
from tests.unit.workers.test_bench import on_device
from tests.unit.workers.test_bench import unfused
from tests.unit.workers.test_fusion import NO_ATTENTION
from tests.unit.workers.test_fusion import NO_FEED_FORWARD
from tests.unit.workers.test_fusion import SHAPES
from tests.unit.workers.test_fusion import WHOLE
from tests.unit.workers.test_fusion import brief as brief
from tests.unit.workers.test_fusion import measured
from tests.unit.workers.test_fusion import recipe
from workers.operations.bench import Bench
from workers.runner.operation import OperationContext

GRAPH = GraphRecipe(operators="standard", packed_qkv=False)
STATIC = QuantizationRecipe(scheme="static", ranges="minmax", smoothing=0.7)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    pytest.importorskip("openvino")
    if platform.machine() != "x86_64":
        pytest.skip("layers of other processors have other names")
    return on_device(tmp_path_factory.mktemp("openvino"), "openvino")


@pytest.fixture(scope="module")
def device(work: Bench) -> OperationContext:
    return OperationContext("device", work.inputs.work, lambda _: None)


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_block_of_what_jobs_build_is_fused(work: Bench, device: OperationContext, shape: str, bits: int) -> None:
    found = measured(work, device, recipe(SHAPES[shape], bits, graph=GRAPH, quantization=STATIC))
    assert found.fusions is not None
    assert found.fusions.complete, found.fusions


def test_a_gelu_that_is_not_recognised_is_missed(
    work: Bench, device: OperationContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressors.export.onnx.feed_forward.emit_activation", unfused)
    found = measured(work, device, recipe((NO_ATTENTION, NO_ATTENTION), graph=GRAPH))
    assert found.fusions is not None
    assert found.fusions.found == {"norms": 5, "attentions": 0, "activations": 0}
    assert not found.fusions.complete


@pytest.mark.parametrize("gelu", ["erf", "tanh", "written out with tanh"])
def test_a_gelu_that_is_written_out_is_recognised(
    work: Bench, device: OperationContext, monkeypatch: pytest.MonkeyPatch, gelu: str
) -> None:
    settings = GRAPH.model_copy(update={"gelu": gelu}) if gelu in ("erf", "tanh") else GRAPH
    if settings is GRAPH:
        monkeypatch.setattr("compressors.export.onnx.feed_forward.emit_activation", written_out)
    for bits in (32, 8):
        found = measured(work, device, recipe((WHOLE, NO_ATTENTION), bits, graph=settings, quantization=STATIC))
        assert found.fusions is not None
        assert found.fusions.complete, (bits, found.fusions)


def written_out(context: Context, source: str, kind: str, output: str) -> str:
    """GELU's tanh form as the libraries write it."""
    builder = context.builder

    def scaled(value: str, factor: float, name: str) -> str:
        return builder.node("Mul", [value, builder.constant(np.float32(factor))], f"{output}.{name}")

    cube = builder.node("Pow", [source, builder.constant(np.float32(3.0))], f"{output}.cube")
    total = builder.node("Add", [source, scaled(cube, 0.044715, "part")], f"{output}.total")
    curve = builder.node("Tanh", [scaled(total, math.sqrt(2.0 / math.pi), "inner")], f"{output}.tanh")
    shifted = builder.node("Add", [curve, builder.constant(np.float32(1.0))], f"{output}.shifted")
    return builder.node("Mul", [scaled(source, 0.5, "half"), shifted], output)


def test_the_arithmetic_of_the_products_is_told(work: Bench, device: OperationContext) -> None:
    def arithmetics(bits: int = 32, **settings: object) -> dict[str, int]:
        shape = (WHOLE, NO_FEED_FORWARD)
        facts = measured(work, device, recipe(shape, bits, graph=GRAPH, **settings)).facts
        found: dict[str, int] = facts["models"]["candidate"]["products"]
        assert facts["models"]["reference"]["products"].keys() == {"f32"}
        return found

    exact = arithmetics()
    assert exact.keys() == {"f32"}
    rounded = arithmetics(8, quantization=STATIC)
    assert rounded == {"int8": 10, "f32": sum(exact.values()) - 10}, "attention and the head are not rounded"
    if this_cpu().fast_bf16:
        assert arithmetics(precision="bf16").keys() == {"bf16"}


def test_of_baselines_too(work: Bench, device: OperationContext) -> None:
    found = measured(work, device, BaselineCandidate(name="fp32"))
    assert found.fusions is not None
    assert found.fusions.expected == found.fusions.reference_expected
    assert found.fusions.found == found.fusions.reference_found
