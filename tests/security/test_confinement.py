"""A real runner tries what it must not do, with each layer on and with each layer off."""

import os
import shutil
import socket
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from infra.errors import RunnerError
from infra.settings import load_settings
from workers.runner import launch
from workers.runner.kernel import this_machine
from workers.runner.landlock import version
from workers.runner.process import RunnerProcess
from workers.runner.system_calls import Sockets
from workers.runner.system_calls import filter_program

LAYERS = ("isolate_files", "isolate_network", "filter_system_calls")

Start = Callable[..., RunnerProcess]

needs_landlock = pytest.mark.skipif(version() == 0, reason="this kernel has no Landlock")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a secret in it; jobs have their directories below ``work``."""
    (tmp_path / "api-key").write_text("pt_0.secret")
    (tmp_path / "work" / "other-job").mkdir(parents=True)
    (tmp_path / "work" / "other-job" / "data.jsonl").write_text("secret")
    return tmp_path


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Starts a runner with only the named layers; with all if none is named."""
    started = []

    def start_runner(*only: str, **overrides: object) -> RunnerProcess:
        switches = {f"runner_{layer}": layer in only for layer in LAYERS} if only else {}
        settings = load_settings(home=home, **switches, **overrides)
        runner = RunnerProcess(settings, "compute", home / "work" / "job", "tests.security.forbidden")
        started.append(runner)
        return runner

    yield start_runner
    for runner in started:
        runner.close()


@needs_landlock
def test_a_runner_sees_no_files_but_its_own(start: Start, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_BROKER_URL", "redis://:secret@host")
    secrets = [
        home / "api-key",
        home / "work" / "other-job" / "data.jsonl",
        Path(__file__).parents[2] / "pyproject.toml",  # beside the packages, not in them
        Path(f"/proc/{os.getpid()}/environ"),
        Path(f"/proc/{os.getpid()}/cwd"),
    ]
    open_to_all, closed = start("isolate_network"), start("isolate_files")
    assert not open_to_all.layers["own_files_only"]
    assert closed.layers["own_files_only"]
    for path in secrets[:3]:
        assert open_to_all.call("read", {"path": str(path)})["content"], path
    for path in secrets:
        assert closed.call("read", {"path": str(path)}) == {"refused": "Permission denied"}, path
    link = home / "work" / "job" / "link"
    link.symlink_to(home / "api-key")
    assert closed.call("read", {"path": str(link)}) == {"refused": "Permission denied"}


@needs_landlock
def test_a_runner_writes_nowhere_but_in_its_work_directory(start: Start, home: Path) -> None:
    runner = start("isolate_files")
    library = Path(__file__).parents[2] / "infra" / "planted.py"
    for path in (home / "api-key", home / "work" / "other-job" / "data.jsonl", home / "new", library):
        assert runner.call("write", {"path": str(path)}) == {"refused": "Permission denied"}, path
    assert (home / "api-key").read_text() == "pt_0.secret"
    assert runner.call("write", {"path": str(home / "work" / "job" / "mine")}) == {"written": True}


@needs_landlock
def test_what_a_runner_writes_it_cannot_run(start: Start) -> None:
    program = shutil.which("true")
    assert start("isolate_network").call("run_file", {"program": program}) == {"status": 0}
    assert start("isolate_files").call("run_file", {"program": program}) == {"refused": "Permission denied"}


@pytest.mark.skipif(version() < 6, reason="this kernel's Landlock knows no scopes")
def test_a_runner_cannot_signal_the_processes_of_the_service(start: Start) -> None:
    arguments = {"pid": os.getpid()}
    assert start("isolate_network").call("signal_process", arguments) == {"reached": True}
    assert start("isolate_files").call("signal_process", arguments) == {"refused": "Operation not permitted"}


@needs_landlock
def test_the_operator_can_let_runners_read_more(start: Start, home: Path) -> None:
    runner = start(runner_readable=[home / "api-key"])
    assert runner.call("read", {"path": str(home / "api-key")}) == {"content": "pt_0.secret"}
    assert "refused" in runner.call("write", {"path": str(home / "api-key")})


def test_a_runner_has_no_network_where_the_kernel_allows_that(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = {"port": server.getsockname()[1]}
        assert start("isolate_files").call("connect", arguments) == {"connected": True}
        runner = start("isolate_network")
        if not runner.layers["no_network"]:
            pytest.skip("this kernel gives us no network namespace")
        assert runner.call("connect", arguments) == {"refused": "Network is unreachable"}
        assert start().call("connect", arguments) == {"refused": "Permission denied"}


def test_a_runner_cannot_reach_the_socket_of_the_broker(start: Start, home: Path) -> None:
    path = home / "valkey.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert start("isolate_network").call("connect_unix", {"path": str(path)}) == {"connected": True}
        assert start().call("connect_unix", {"path": str(path)}) == {"refused": "Permission denied"}


def test_cuda_gets_what_it_needs_to_start_only_where_there_is_a_gpu(
    start: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "NVIDIA_CONTROL", home / "nvidiactl")
    refused = {"refused": "Permission denied"}
    assert start().call("listen_as_cuda", {}) == refused
    if version():
        assert start().call("name_thread", {}) == refused
    (home / "nvidiactl").touch()
    runner = start()
    assert runner.call("listen_as_cuda", {}) == {"listening": True} | refused
    assert runner.call("name_thread", {}) == {"written": True}
    with socket.socket(socket.AF_UNIX) as broker:
        broker.bind(str(home / "valkey.sock"))
        broker.listen()
        assert runner.call("connect_unix", {"path": str(home / "valkey.sock")}) == refused
    assert "refused" in runner.call("write", {"path": "/proc/sys/kernel/domainname"})


@pytest.mark.parametrize("name", ["ptrace", "mount", "unshare", "bpf", "io_uring_setup", "process_vm_readv", "keyctl"])
def test_dangerous_system_calls_are_refused(start: Start, name: str) -> None:
    machine = this_machine()
    assert machine is not None
    runner = start("filter_system_calls")
    answer = runner.call("call_kernel", {"number": machine.calls[name]})
    assert answer == {"result": -1, "refused": "Operation not permitted"}
    assert runner.layers["filtered_system_calls"]


def test_a_runner_makes_no_namespaces_of_its_own(start: Start) -> None:
    assert start("filter_system_calls").call("new_namespace", {}) == {"refused": "Operation not permitted"}


@pytest.mark.parametrize("sockets", get_args(Sockets))
def test_a_filter_is_short_enough_for_its_jumps(sockets: Sockets) -> None:
    machine = this_machine()
    assert machine is not None
    program = filter_program(machine, sockets=sockets)
    assert len(program) < 4096
    for index, (code, jump_true, jump_false, _) in enumerate(program):
        jumps = code & 0x07 == 0x05
        assert not jumps or index + 1 + max(jump_true, jump_false) < len(program)
    assert program[-1][0] == 0x06


@needs_landlock
@pytest.mark.skipif(os.getuid() != 0, reason="others cannot open these devices anyway")
def test_root_in_a_runner_opens_no_devices_and_changes_no_kernel_settings(start: Start) -> None:
    runner = start()
    for path in ("/dev/kmsg", "/dev/mem", "/dev/fuse", "/dev/loop-control"):
        if Path(path).exists():
            assert "refused" in runner.call("open_device", {"path": path}), path
    assert "refused" in runner.call("write", {"path": "/proc/sys/kernel/core_pattern"})
    assert runner.call("open_device", {"path": "/dev/null"}) == {"opened": True}


def test_limits_and_privileges(start: Start) -> None:
    runner = start(runner_processes=1000)
    found = runner.call("limits", {})
    read_any_file, priority = 1 << 2, 1 << 23
    assert found["capabilities"] & ~(read_any_file | priority) == 0
    assert found["core"] == [0, 0]
    assert found["processes"] == [1000, 1000]
    assert found["no_new_privileges"] == "1"
    assert found["filter"] == "2"
    assert runner.layers["no_capabilities"]


def test_too_many_threads_and_processes_are_stopped_even_for_root(start: Start) -> None:
    with pytest.raises(RunnerError, match="more than the 100 processes and threads"):
        start(runner_processes=100).call("start_threads", {"count": 150}, timeout=30)


def test_honest_work_goes_on_behind_all_layers(start: Start) -> None:
    runner = start()
    assert runner.call("compute", {}) == {"output": "10\n"}
    assert all(runner.layers.values()) or version() == 0
