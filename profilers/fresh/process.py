"""Start a fresh process, wait for it, and turn whatever goes wrong into an error of ours."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import profilers
from infra.errors import RunnerError
from infra.errors import from_dict
from profilers.fresh.request import FreshRequest
from profilers.protocol import Feeds
from profilers.samples import PairedSamples

START_SECONDS = 120.0
"""Allowance for starting, loading and inspecting, on top of the measurement's own limit."""

Waiting = Callable[[float], None]
"""Called with the seconds waited so far, about once a second; what it raises ends the process."""


def run_fresh(
    request: FreshRequest, feeds: Feeds | None = None, waiting: Waiting | None = None
) -> tuple[dict[str, Any], list[PairedSamples]]:
    """Run one request in a new interpreter.

    Returns:
        The content of ``result.json`` and the samples of the candidates in order.

    Raises:
        RunnerError: The process was killed, crashed, or did not end in time.
        ParetuneError: The error that the process reported.
    """
    with tempfile.TemporaryDirectory(prefix="paretune-fresh-") as name:
        directory = Path(name)
        (directory / "request.json").write_text(request.model_dump_json(), encoding="utf-8")
        if feeds is not None:
            arrays: dict[str, Any] = dict(feeds)
            np.savez(directory / "feeds.npz", **arrays)
        limit = request.effort.limit(len(request.candidates)) + START_SECONDS
        status = _wait(directory, limit, waiting)
        result = _read_result(directory, status)
        paths = sorted(directory.glob("samples-*.npz"), key=lambda path: int(path.stem.partition("-")[2]))
        return result, [PairedSamples.from_npz(path.read_bytes()) for path in paths]


def _wait(directory: Path, limit: float, waiting: Waiting | None) -> int:
    root = str(Path(profilers.__file__).parents[1])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "profilers.fresh", str(directory)]
    started = time.monotonic()
    with (directory / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while True:
                try:
                    return process.wait(timeout=1.0)
                except subprocess.TimeoutExpired:
                    waited = time.monotonic() - started
                    if waited > limit:
                        raise RunnerError(
                            f"A fresh measuring process did not end within {limit:.0f} s.",
                            hint="Give more time, or measure a smaller workload.",
                        ) from None
                    if waiting is not None:
                        waiting(waited)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _read_result(directory: Path, status: int) -> dict[str, Any]:
    path = directory / "result.json"
    if not path.exists():
        output = (directory / "output.txt").read_text(encoding="utf-8", errors="replace")[-1500:]
        reason = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        raise RunnerError(
            f"A fresh measuring process ended without a result ({reason}): {output.strip() or 'no output'}",
            hint="SIGKILL usually means out of memory; otherwise the output above says what the runtime did not like.",
        )
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "error" in result:
        raise from_dict(result["error"])
    return result
