"""Whether a graph keeps its lead when it is opened the way users open it.

What is measured is opened with the threads of the workload, without spinning, on pinned cores and with bound inputs.
Here the same files are timed in three ways: so (``ours``), in a plain session with only the number of threads set
(``threads``), and in a session with no options at all: all cores, and threads that wait for work by spinning
(``defaults``). Factors are against the reference opened in the same way.

Threads of one session spin for a while after its last run and take cores from the next one. So each way has a process
of its own, and in it only one session is alive at a time: each visit opens the file, warms up, is timed, and closes.

    python -m benchmarks.session_options WAY REQUEST.json

prints what one way finds, as JSON; :mod:`benchmarks.graph_recipes` ``--defaults`` calls it.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from profilers.protocol import Feeds
from profilers.protocol import Visit
from profilers.registry import get_profiler
from profilers.statistics import ratio_estimate
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Estimate
from profilers.types import Workload

WAYS = {
    "ours": "as in our measurements",
    "threads": "plain session, only intra_op_num_threads",
    "defaults": "plain session, no options: all cores, spinning",
}
LEAD_IN, RUNS = 4, 8
"""Runs of a visit: not timed, and timed."""
LEAST_BLOCKS = 8
CONTROL = "reference again"

Timer = Callable[[Path], float]
"""Opens a file, runs it, closes it; returns the milliseconds of a run."""


class Request(BaseModel):
    """What all ways time.

    Attributes:
        models: Files by name; the first is the reference.
        feeds: Inputs at the workload's shape, as ``.npz``.
        seconds: Time for each way.
    """

    models: dict[str, Path]
    feeds: Path
    workload: Workload
    seconds: float
    seed: int = 0


class Found(BaseModel):
    """What one way found of one model."""

    milliseconds: float
    ratio: Estimate
    """Model / reference, over paired blocks."""


def compare_ways(request: Request, scratch: Path) -> dict[str, dict[str, Found]]:
    """Time the models in every way of :data:`WAYS`, each in a fresh process; results by way and model."""
    path = scratch / "session_options.json"
    path.write_text(request.model_dump_json())
    results = {}
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.session_options", way, str(path)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        results[way] = {name: Found.model_validate(found) for name, found in json.loads(answer).items()}
    return results


def time_models(request: Request, timer: Timer) -> dict[str, Found]:
    """Visit all models and the reference a second time, in random order, again and again until the time is up."""
    reference, *others = request.models
    files = request.models | {CONTROL: request.models[reference]}
    generator, end = np.random.default_rng(request.seed), time.monotonic() + request.seconds
    blocks: list[dict[str, float]] = []
    while len(blocks) < LEAST_BLOCKS or time.monotonic() < end:
        order = [list(files)[index] for index in generator.permutation(len(files))]
        blocks.append({name: timer(files[name]) for name in order})
    found = {}
    for name in (*others, CONTROL):
        logs = [math.log(block[name] / reference_of(block, reference, name)) for block in blocks]
        found[name] = Found(
            milliseconds=float(np.median([block[name] for block in blocks])),
            ratio=ratio_estimate(np.array(logs), request.seed),
        )
    return found


def reference_of(block: dict[str, float], reference: str, name: str) -> float:
    """Return the reference's time in a block: the control is held against the other visit, models against both."""
    return block[reference] if name == CONTROL else math.sqrt(block[reference] * block[CONTROL])


def plain_timer(threads: int | None, feeds: Feeds) -> Timer:
    """Return a timer that does what a user's program does; ``None``: without any options."""
    import onnxruntime

    def timer(path: Path) -> float:
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options)
        given = {value.name: feeds[value.name] for value in session.get_inputs()}
        for _ in range(LEAD_IN):
            session.run(None, given)
        start = time.perf_counter()
        for _ in range(RUNS):
            session.run(None, given)
        return 1000 * (time.perf_counter() - start) / RUNS

    return timer


def time_ours(request: Request, feeds: Feeds) -> dict[str, Found]:
    """Time the models in the sessions of the profiler."""
    device = DeviceProfile(name="local", profiler="onnxruntime")
    with get_profiler("onnxruntime").open(device, request.workload, feeds=feeds) as session:

        def timer(path: Path) -> float:
            handle = session.load(Artifact(path=path))
            samples = session.sample([Visit(handle, RUNS, LEAD_IN)])
            session.unload(handle)
            return float(samples.elapsed_ns[0]) / RUNS / 1e6

        return time_models(request, timer)


def main(way: str, path: Path) -> None:
    """Time the models of a request in one way and print what was found."""
    request = Request.model_validate_json(path.read_bytes())
    with np.load(request.feeds) as arrays:
        feeds = dict(arrays)
    if way == "ours":
        found = time_ours(request, feeds)
    else:
        threads = request.workload.threads if way == "threads" else None
        found = time_models(request, plain_timer(threads, feeds))
    print(json.dumps({name: item.model_dump() for name, item in found.items()}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
