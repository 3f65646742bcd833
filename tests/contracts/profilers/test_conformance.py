"""Every CPU backend passes the kit that plugins must pass."""

from collections.abc import Callable

import numpy as np
import pytest

from profilers.conformance import CHECKS
from profilers.conformance import ConformanceError
from profilers.conformance import Kit
from profilers.conformance import check_run_equals_reference
from profilers.registry import get_profiler
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Workload
from tests.unit.profilers.onnx_models import HIDDEN
from tests.unit.profilers.onnx_models import run_chain
from tests.unit.profilers.onnx_models import write_chain

WIDTH = 512


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    profiler = get_profiler(request.param)
    if not profiler.describe().available:
        pytest.skip(profiler.describe().reason)
    folder = tmp_path_factory.mktemp("kit")
    model = write_chain(folder / "model.onnx", width=WIDTH)
    damaged = folder / "damaged.onnx"
    damaged.write_bytes(model.read_bytes()[:1000])
    rng = np.random.default_rng(0)
    workload = Workload(batch=1, sequence_length=64)
    return Kit(
        profiler=profiler,
        device=DeviceProfile(name="test", profiler=request.param),
        workload=workload,
        model=Artifact(path=model),
        smaller=Artifact(path=write_chain(folder / "smaller.onnx", width=WIDTH // 2)),
        damaged=Artifact(path=damaged),
        feeds={"x": rng.standard_normal((1, 64, HIDDEN)).astype(np.float32)},
        other_feeds={"x": rng.standard_normal((3, 7, HIDDEN)).astype(np.float32)},
        expected=lambda feeds: {"y": run_chain(feeds["x"], width=WIDTH)},
        seconds=3.0,
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_backend_keeps_the_protocol(kit: Kit, check: Callable[[Kit], None]) -> None:
    check(kit)


def test_the_kit_notices_wrong_outputs(kit: Kit) -> None:
    wrong = {**kit.__dict__, "expected": lambda feeds: {"y": run_chain(feeds["x"], width=WIDTH) + 0.1}}
    with pytest.raises(ConformanceError, match="off by"):
        check_run_equals_reference(Kit(**wrong))
