"""The service that demos and benchmarks start for themselves."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.helpers.processes import gone

SCRIPT = """
import sys, time
from pathlib import Path
from examples.service import running_service

with running_service(Path(sys.argv[1])):
    print("running", flush=True)
    time.sleep(600)
"""


def test_a_benchmark_that_is_terminated_takes_its_service_along(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as benchmark:
        try:
            assert benchmark.stdout is not None
            assert benchmark.stdout.readline() == "running\n"
            started = [process.pid for process in psutil.Process(benchmark.pid).children(recursive=True)]
            assert started
            benchmark.terminate()
            assert benchmark.wait(timeout=90) == 128 + 15
            assert all(gone(pid) for pid in started)
        finally:
            benchmark.kill()
