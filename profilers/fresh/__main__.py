"""Entry point of a fresh measuring process: ``python -m profilers.fresh DIRECTORY``.

The directory holds ``request.json`` (and ``feeds.npz``); the answer is written beside it: ``result.json`` and, for a
measurement, ``samples-N.npz`` for each candidate.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import ParetuneError
from profilers.fresh.memory import peak_rise
from profilers.fresh.request import FreshRequest
from profilers.measure import executed_operators
from profilers.measure import measure
from profilers.protocol import Session
from profilers.protocol import Visit
from profilers.registry import get_profiler
from profilers.types import Artifact


def main(directory: Path) -> int:
    """Do what ``request.json`` says and write ``result.json``; return the exit status."""
    request = FreshRequest.model_validate_json((directory / "request.json").read_bytes())
    try:
        profiler = get_profiler(request.device.profiler)
        with profiler.open(request.device, request.workload, feeds=_feeds(directory)) as session:
            result = _memory(session, request) if request.kind == "memory" else _measure(session, request, directory)
    except ParetuneError as error:
        result = {"error": error.to_dict()}
    (directory / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return 1 if "error" in result else 0


def _feeds(directory: Path) -> dict[str, NDArray[Any]] | None:
    path = directory / "feeds.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _measure(session: Session, request: FreshRequest, directory: Path) -> dict[str, Any]:
    artifacts = [request.reference, *request.candidates.values()]
    handles = {}
    for index in np.random.default_rng(request.seed).permutation(len(artifacts)):  # the order of loading matters
        handles[int(index)] = session.load(artifacts[index])
    candidates = {name: handles[number] for number, name in enumerate(request.candidates, start=1)}
    measured = measure(session, handles[0], candidates, request.effort, request.seed)
    measurements = []
    reference_fusion = executed_operators(handles[0]) if request.operators else {}
    for number, (name, result) in enumerate(measured.items()):
        (directory / f"samples-{number}.npz").write_bytes(result.samples.to_npz())
        fusion = executed_operators(candidates[name]) if request.operators else {}
        graphs = {"fusion": fusion, "reference_fusion": reference_fusion}
        measurements.append(result.measurement.model_copy(update=graphs).model_dump(mode="json"))
    return {"measurements": measurements}


def _memory(session: Session, request: FreshRequest) -> dict[str, Any]:
    return {"peak_bytes": peak_rise(lambda: _load_and_run(session, request.reference))}


def _load_and_run(session: Session, artifact: Artifact) -> None:
    session.sample([Visit(session.load(artifact))])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
