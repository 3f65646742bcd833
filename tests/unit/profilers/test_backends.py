"""What the conformance kit does not cover."""

from pathlib import Path

import numpy as np
import pytest

from infra.errors import InvalidInputError
from infra.errors import InvalidModelError
from infra.errors import UnavailableError
from profilers.feeds import InputSpec
from profilers.feeds import synthetic_feeds
from profilers.measure import measure
from profilers.protocol import Visit
from profilers.registry import get_profiler
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Effort
from profilers.types import Workload
from tests.unit.profilers.onnx_models import HIDDEN
from tests.unit.profilers.onnx_models import run_chain
from tests.unit.profilers.onnx_models import write_chain
from tests.unit.profilers.simulation import SimulatedModel
from tests.unit.profilers.torch_models import write_tiny_torch_artifact

WORKLOAD = Workload(batch=2, sequence_length=16)


def open_session(name: str, **options):
    return get_profiler(name).open(DeviceProfile(name="d", profiler=name, options=options), WORKLOAD)


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    return write_chain(tmp_path_factory.mktemp("chain") / "chain.onnx")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_formats_and_precisions_that_are_not_offered_are_refused(name, chain):
    with open_session(name) as session:
        with pytest.raises(InvalidModelError, match="torch"):
            session.load(Artifact(path=chain, format="torch"))
        if name == "onnxruntime":
            with pytest.raises(InvalidModelError, match="bf16"):
                session.load(Artifact(path=chain, precision="bf16"))


def test_openvino_reads_its_own_format(chain, tmp_path):
    openvino = pytest.importorskip("openvino")
    openvino.save_model(openvino.convert_model(str(chain)), str(tmp_path / "m.xml"), compress_to_fp16=False)
    x = np.random.default_rng(0).standard_normal((2, 16, HIDDEN)).astype(np.float32)
    expected = run_chain(x)
    with open_session("openvino") as session:
        handle = session.load(Artifact(path=tmp_path / "m.xml", format="openvino_ir"))
        facts = handle.facts()
        assert facts["INFERENCE_PRECISION_HINT"] == "f32"
        assert set(facts["products"]) == {"f32"}
        exact = handle.run({"x": x})["y"]
    assert np.allclose(exact, expected, atol=1e-4)


def test_openvino_computes_in_bf16_or_says_that_it_cannot(chain):
    openvino = pytest.importorskip("openvino")
    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    x = np.random.default_rng(0).standard_normal((2, 16, HIDDEN)).astype(np.float32)
    with open_session("openvino") as session:
        if not able:
            with pytest.raises(InvalidModelError, match="bf16"):
                session.load(Artifact(path=chain, precision="bf16"))
            return
        handle = session.load(Artifact(path=chain, precision="bf16"))
        facts = handle.facts()
        assert facts["INFERENCE_PRECISION_HINT"] == "bf16"
        assert set(facts["products"]) == {"bf16"}, "what it says is what it does"
        rough = handle.run({"x": x})["y"]
    assert 1e-4 < np.abs(rough - run_chain(x)).max() < 0.1


def test_openvino_fixes_the_workload_shape(chain):
    x = np.zeros((1, 3, HIDDEN), np.float32)
    with open_session("openvino") as session:
        with pytest.raises(InvalidInputError, match=r"static=False|incompatible"):
            session.load(Artifact(path=chain)).run({"x": x})
        assert session.load(Artifact(path=chain), static=False).run({"x": x})["y"].shape == (1, 3, HIDDEN)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_outputs_are_copies(name, chain):
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((2, 16, HIDDEN)).astype(np.float32)} for _ in range(2)]
    with open_session(name) as session:
        handle = session.load(Artifact(path=chain))
        first = handle.run(feeds[0])["y"]
        kept = first.copy()
        handle.run(feeds[1])
        assert np.array_equal(first, kept)


def test_two_runtimes_race_in_the_same_blocks(chain):
    with open_session("onnxruntime") as session, open_session("openvino") as other:
        reference = session.load(Artifact(path=chain))
        candidates = {"openvino": other.load(Artifact(path=chain))}
        found = measure(session, reference, candidates, Effort(half_width=0.3, seconds=1, retreats=0))["openvino"]
    assert found.measurement.ratio.value > 0


def test_a_foreign_handle_is_refused():
    with open_session("onnxruntime") as session, pytest.raises(InvalidInputError, match="SimulatedModel"):
        session.sample([Visit(SimulatedModel(1.0))])


def test_synthetic_inputs_are_valid_and_repeatable():
    specs = [
        InputSpec("input_ids", np.dtype(np.int64), (None, None)),
        InputSpec("attention_mask", np.dtype(np.int64), (None, None)),
        InputSpec("token_type_ids", np.dtype(np.int64), (2, 16)),
        InputSpec("scale", np.dtype(np.float32), (None, None, 5)),
    ]
    feeds = synthetic_feeds(specs, WORKLOAD)
    assert feeds["input_ids"].shape == (2, 16)
    assert 0 <= feeds["input_ids"].min() < feeds["input_ids"].max() < 100
    assert feeds["attention_mask"].all()
    assert not feeds["token_type_ids"].any()
    assert feeds["scale"].shape == (2, 16, 5)
    again = synthetic_feeds(specs, WORKLOAD)
    assert all(np.array_equal(feeds[name], again[name]) for name in feeds)
    with pytest.raises(InvalidInputError, match="dynamic axes"):
        synthetic_feeds([InputSpec("x", np.dtype(np.float32), (None, None, None))], WORKLOAD)


class TestTorch:
    """What the CUDA backend does with a model, on the CPU."""

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("torch")
        write_tiny_torch_artifact(folder)
        return folder

    def test_folder_and_program_give_the_module_s_output(self, folder):
        import torch

        from paretune.artifact import load
        from profilers.backends.torch_module import TorchModel

        module = load(folder)
        rng = np.random.default_rng(0)
        feeds = {
            "input_ids": rng.integers(0, 20, (2, 16)),
            "attention_mask": np.tile(np.arange(16) < 11, (2, 1)).astype(np.int64),
            "token_type_ids": np.zeros((2, 16), np.int64),
        }
        tensors = tuple(torch.from_numpy(value) for value in feeds.values())
        expected = module(*tensors).detach().numpy()
        torch.export.save(torch.export.export(module, tensors), folder / "model.pt2")
        cpu = torch.device("cpu")
        for path, precision, tolerance in (
            (folder, "f32", 1e-6),
            (folder / "model.pt2", "f32", 1e-6),
            (folder, "bf16", 0.1),
        ):
            model = TorchModel.read(Artifact(path=path, format="torch", precision=precision), cpu)
            assert model.inputs == tuple(feeds)
            output = model.run(feeds)["output"]
            assert output.dtype == np.float32
            assert np.allclose(output, expected, atol=tolerance)
        assert model.operators(WORKLOAD, None)["embedding"] == 2  # positions are sliced

    def test_damaged_and_unsuitable_files_are_refused(self, folder, tmp_path):
        import torch

        from profilers.backends.torch_module import TorchModel

        cpu = torch.device("cpu")
        (tmp_path / "bad.pt2").write_bytes(b"PK nonsense")
        for artifact in (
            Artifact(path=tmp_path, format="torch"),
            Artifact(path=tmp_path / "bad.pt2", format="torch"),
            Artifact(path=tmp_path / "none.pt2", format="torch"),
            Artifact(path=tmp_path / "bad.pt2", format="torch", precision="bf16"),
        ):
            with pytest.raises(InvalidModelError):
                TorchModel.read(artifact, cpu)


@pytest.mark.gpu
class TestGpu:
    def test_the_device_is_named(self):
        profiler = get_profiler("torch_cuda")
        if not profiler.describe().available:
            pytest.skip(profiler.describe().reason)
        device = DeviceProfile(name="gpu", profiler="torch_cuda")
        facts = profiler.device_facts(device)
        assert "NVIDIA" in facts["gpu"]
        assert facts["gpu_memory"] > 1 << 30
        with profiler.open(device, WORKLOAD) as session:
            assert session.facts().items() >= facts.items()

    @pytest.mark.parametrize("mode", ["graph", "eager"])
    def test_times_and_outputs(self, tmp_path, mode):
        profiler = get_profiler("torch_cuda")
        if not profiler.describe().available:
            pytest.skip(profiler.describe().reason)
        write_tiny_torch_artifact(tmp_path)
        artifact = Artifact(path=tmp_path, format="torch")
        device = DeviceProfile(name="gpu", profiler="torch_cuda", options={"mode": mode})
        with profiler.open(device, WORKLOAD) as session:
            reference, copy = session.load(artifact), session.load(artifact)
            found = measure(session, reference, {"copy": copy}, Effort.shortlist())["copy"].measurement
            assert found.status == "ok"
            assert found.ratio.low <= 1.02
            assert found.ratio.high >= 0.98


def test_the_gpu_says_why_it_is_not_there():
    profiler = get_profiler("torch_cuda")
    if profiler.describe().available:
        pytest.skip("there is a GPU")
    with pytest.raises(UnavailableError) as caught:
        profiler.open(DeviceProfile(name="gpu", profiler="torch_cuda"), WORKLOAD)
    assert caught.value.message
