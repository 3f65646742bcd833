"""Examples of the guides that are run: REST calls against a real server, and the example plugin."""

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlmodel import select

from infra.database.models import Job
from profilers.conformance import Kit
from profilers.conformance import check_bad_input
from profilers.conformance import check_description
from profilers.conformance import check_determinism
from profilers.conformance import check_run_equals_reference
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Workload
from tests.security.model_bytes import model_files
from tests.unit.api.conftest import ROWS
from tests.unit.api.conftest import World
from tests.unit.api.conftest import empty_database
from tests.unit.api.conftest import settings
from tests.unit.api.conftest import world
from tests.unit.api.live import add_key
from tests.unit.api.live import run_server
from tests.unit.api.outcome import add_outcome
from tests.unit.docs.documents import ROOT
from tests.unit.docs.documents import fences
from tests.unit.profilers.onnx_models import HIDDEN
from tests.unit.profilers.onnx_models import run_chain
from tests.unit.profilers.onnx_models import write_chain

__all__ = ["empty_database", "settings", "world"]

GUIDES = ROOT / "docs/guides"
SUBMIT, ASK = [fence.text for fence in fences("sh", [GUIDES / "quickstart.md"]) if "call " in fence.text]
WIDTH = 64


def test_the_rest_calls_of_the_quickstart(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "client" / "my-model"
    folder.mkdir(parents=True)
    for name, content in model_files().items():
        (folder / name).write_bytes(content)
    (folder.parent / "dev.jsonl").write_bytes(ROWS)
    with run_server(world) as url:
        where = SUBMIT.replace("$(cat ~/.paretune/api-key)", add_key(world)).replace("http://127.0.0.1:8765", url)
        job = last_object(shell(where, folder.parent))
        assert job["state"] == "queued"
        assert job["request"]["goal"] == {"max_drop": 0.01, "max_latency_ms": None, "max_size_mb": None}
        with world.services.database.write_session() as session:
            row = session.exec(select(Job)).one()
            add_outcome(session, row)
            row.state = "succeeded"
        asked = ASK.replace("call --output model.onnx", "! call --output model.onnx")  # no worker makes it here
        answers = shell(f"{where}\nJOB={job['id']}\n{asked}", folder.parent)
    assert "event: trial" in answers
    assert '"points":' in answers
    assert '"others":' in answers
    assert "The export is queued." in (folder.parent / "model.onnx").read_text()


def last_object(text: str) -> dict[str, Any]:
    """The last of several JSON objects that follow each other."""
    decoder, found, rest = json.JSONDecoder(), {}, text.lstrip()
    while rest:
        found, end = decoder.raw_decode(rest)
        rest = rest[end:].lstrip()
    return found


def shell(text: str, directory: Path) -> str:
    command = ["bash", "-e", "-o", "pipefail", "-c", text]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """The example plugin of the guide, with material to test it."""
    (code,) = (fence.text for fence in fences("python", [GUIDES / "devices.md"]) if "ReferenceProfiler" in fence.text)
    module = types.ModuleType("example_plugin")
    monkeypatch.setitem(sys.modules, "example_plugin", module)
    exec(compile(code, "devices.md", "exec"), module.__dict__)
    model = write_chain(tmp_path / "model.onnx", width=WIDTH)
    (tmp_path / "damaged.onnx").write_bytes(model.read_bytes()[:1000])
    rng = np.random.default_rng(0)
    return Kit(
        profiler=module.ReferenceProfiler(),
        device=DeviceProfile(name="test", profiler="onnx_reference"),
        workload=Workload(batch=1, sequence_length=8),
        model=Artifact(path=model),
        smaller=Artifact(path=write_chain(tmp_path / "smaller.onnx", width=WIDTH // 2)),
        damaged=Artifact(path=tmp_path / "damaged.onnx"),
        feeds={"x": rng.standard_normal((1, 8, HIDDEN)).astype(np.float32)},
        other_feeds={"x": rng.standard_normal((3, 7, HIDDEN)).astype(np.float32)},
        expected=lambda feeds: {"y": run_chain(feeds["x"], width=WIDTH)},
    )


def test_the_example_plugin_keeps_the_protocol(kit: Kit) -> None:
    for check in (check_description, check_run_equals_reference, check_determinism, check_bad_input):
        check(kit)
