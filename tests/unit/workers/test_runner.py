"""A runner that is killed, hangs, eats memory or talks nonsense costs one call and nothing else."""

import os
import signal
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.errors import CancelledError
from infra.errors import InvalidModelError
from infra.errors import RunnerError
from infra.errors import UnavailableError
from infra.settings import Settings
from infra.settings import load_settings
from tests.helpers.processes import gone
from workers.runner.launch import runner_environment
from workers.runner.pool import RunnerPool
from workers.runner.process import RunnerProcess

REGISTRY = "tests.unit.workers.operations"

Start = Callable[..., RunnerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = []

    def start_runner(role: str = "compute", **overrides: object) -> RunnerProcess:
        settings = load_settings(home=tmp_path, **overrides)
        runner = RunnerProcess(settings, role, tmp_path / "work", REGISTRY)  # type: ignore[arg-type]
        started.append(runner)
        return runner

    yield start_runner
    for runner in started:
        runner.close()


def test_results_progress_and_state(start: Start, tmp_path: Path) -> None:
    runner = start()
    seen: list[object] = []
    result = runner.call("echo", {"a": [1, None, "ü"]}, on_progress=seen.append)
    assert result["echo"] == {"a": [1, None, "ü"]}
    assert psutil.Process(result["pid"]).ppid() == runner.pid
    assert seen == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert [runner.call("count", {})["calls"] for _ in range(3)] == [1, 2, 3]
    assert Path(result["cwd"]).parent == tmp_path / "work"
    runner.close()
    assert not Path(result["cwd"]).exists()
    assert gone(runner.pid)
    assert gone(result["pid"])


def test_large_messages_in_both_directions(start: Start) -> None:
    text = "x" * 5_000_000
    assert start().call("large", {"text": text})["text"] == text * 2


def test_what_libraries_print_is_no_message_and_what_they_read_is_empty(start: Start) -> None:
    runner = start()
    assert runner.call("noisy", {}) == {"honest": True}
    assert runner.call("read_stdin", {}, timeout=10) == {"read": ""}


def test_the_environment_has_no_secrets(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_DATABASE_URL", "postgresql://user:secret@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    found = start("device", runner_threads=7).call("environment", {})
    environment = found["environment"]
    assert "secret" not in str(environment)
    assert not [name for name in environment if name.startswith("PARETUNE_")]
    assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert found["session"] not in (found["pid"], os.getsid(0))
    assert start("compute", runner_threads=7).call("environment", {})["environment"]["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(("quota", "threads"), [(None, 8), (2.5, 2), (0.5, 1), (64.0, 8)])
def test_a_runner_has_no_more_threads_than_its_container_may_use(
    quota: float | None, threads: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("workers.runner.launch.cpu_limit", lambda: quota)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert runner_environment("compute", 0, tmp_path)["OMP_NUM_THREADS"] == str(threads)
    assert runner_environment("compute", 5, tmp_path)["OMP_NUM_THREADS"] == "5"


def test_an_error_raised_on_purpose_arrives_whole_and_the_runner_lives_on(start: Start) -> None:
    runner = start()
    with pytest.raises(InvalidModelError) as caught:
        runner.call("refuse", {})
    assert caught.value.hint == "Upload it again."
    assert caught.value.errors == [{"field": "f", "message": "m"}]
    assert runner.call("count", {})["calls"] == 1


def test_a_full_disk_is_waited_for_and_costs_no_runner(start: Start) -> None:
    runner = start()
    with pytest.raises(UnavailableError, match="full"):
        runner.call("fill_disk", {})
    assert runner.call("count", {})["calls"] == 1


@pytest.mark.parametrize(
    ("operation", "arguments", "says"),
    [
        ("break_down", {}, "KeyError: 'surprise'"),
        ("not_json", {}, "not JSON compliant"),
        ("unknown", {}, "no operation 'unknown'"),
        ("crash", {}, "segmentation fault"),
        ("die", {"signal": signal.SIGKILL}, "out of memory"),
        ("die", {"signal": signal.SIGABRT}, "aborted by a library"),
    ],
)
def test_after_an_unexpected_end_the_cause_is_said_and_the_runner_is_gone(
    start: Start, operation: str, arguments: dict[str, object], says: str
) -> None:
    runner = start()
    with pytest.raises(RunnerError, match=says):
        runner.call(operation, arguments)
    assert not runner.alive


@pytest.mark.parametrize("in_child", [False, True])
def test_a_memory_hog_is_stopped(start: Start, in_child: bool) -> None:
    runner = start(runner_memory_bytes=200 * 2**20)
    with pytest.raises(RunnerError, match=r"more than the 0\.2 GiB of memory"):
        runner.call("hog", {"in_child": in_child}, timeout=30)
    assert not runner.alive


def test_a_hang_ends_at_the_timeout_even_if_it_ignores_sigterm(start: Start) -> None:
    runner = start()
    with pytest.raises(RunnerError, match=r"longer than 0\.5 s"):
        runner.call("hang", {}, timeout=0.5)
    assert gone(runner.pid)


def test_cpu_time_and_file_size_are_limited(start: Start) -> None:
    with pytest.raises(RunnerError, match="used up its CPU time"):
        start(runner_cpu_seconds=1).call("spin", {}, timeout=60)
    with pytest.raises(RunnerError, match="File too large"):
        start(runner_file_bytes=1000).call("write", {"bytes": 2000})
    assert start(runner_file_bytes=100_000).call("write", {"bytes": 2000}) == {}


def test_stopping_ends_the_whole_process_group(start: Start, tmp_path: Path) -> None:
    runner = start()
    pids = tmp_path / "work" / "pids"
    started = time.monotonic()

    def check() -> None:
        if pids.exists() and pids.read_text():
            raise CancelledError("The job was cancelled.")

    with pytest.raises(CancelledError):
        runner.call("spawn_and_hang", {"pids": str(pids)}, check=check)
    assert time.monotonic() - started < 10
    for pid in map(int, pids.read_text().split()):
        assert gone(pid)


def test_a_runner_and_what_it_started_die_with_its_parent(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    parent = os.fork()
    if parent == 0:
        runner = RunnerProcess(load_settings(home=tmp_path), "compute", tmp_path, REGISTRY)
        runner.call("spawn_and_hang", {"pids": str(pids)})
        os._exit(0)
    deadline = time.monotonic() + 30
    while not (pids.exists() and pids.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    family = psutil.Process(parent).children(recursive=True)
    assert len(family) == 3
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    for process in family:
        assert gone(process.pid)


class TestPool:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return load_settings(home=tmp_path, runner_idle_seconds=0.4)

    def test_runners_stay_for_a_job_and_are_not_shared_between_jobs(self, settings: Settings, tmp_path: Path) -> None:
        pool = RunnerPool(settings, REGISTRY)
        try:
            pids = []
            for job in ("a", "a", "b"):
                pool.enter(job)
                pids.append(pool.get("compute", tmp_path / job).call("count", {})["pid"])
                pool.leave()
            assert pids[0] == pids[1] != pids[2]
            assert gone(pids[0])
            pool.enter("b")
            os.kill(pids[2], signal.SIGKILL)
            assert gone(pids[2])
            assert pool.get("compute", tmp_path / "b").call("count", {})["calls"] == 1
        finally:
            pool.close()

    def test_idle_runners_are_closed_but_busy_ones_are_not(self, settings: Settings, tmp_path: Path) -> None:
        pool = RunnerPool(settings, REGISTRY)
        try:
            pool.enter("a")
            runner = pool.get("compute", tmp_path)
            time.sleep(1)
            assert runner.alive
            pool.leave()
            assert gone(runner.pid)
        finally:
            pool.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "idle-runners" and thread.is_alive()]
