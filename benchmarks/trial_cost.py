"""Candidates built and evaluated as a job does it, each once: what strategies are compared on."""

import hashlib
import json
import time
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.latency_table import TASK
from benchmarks.latency_table import Bench
from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.export.onnx import write_onnx
from compressors.recipe import Recipe
from compressors.torch_module import to_module
from profilers.quality.encode import EncodedTexts
from profilers.quality.evaluate import run_all
from profilers.quality.metrics import agreement
from profilers.quality.metrics import kl_divergence
from profilers.types import Artifact
from profilers.types import Effort
from search.latency_model import LatencyModel


@dataclass(frozen=True)
class Outcome:
    """What one candidate is worth.

    Attributes:
        divergence: Mean KL(dense || candidate) in nats.
        agreement: Share of texts with the dense model's prediction.
        ratio: Latency as a fraction of the dense export's.
        size_bytes: Of the file.
        seconds: What building, evaluating and (if it was done) measuring took.
    """

    divergence: float
    agreement: float
    ratio: float
    size_bytes: int
    seconds: float


class TrialBench:
    """Builds ONNX files and runs them in the device's runtime; remembers every recipe in a file.

    Args:
        bench: The model and the device.
        calibration: Of the model.
        model: Predicts latency.
        texts: What divergence is taken on.
        ranges: Other texts, for the ranges of activations in the static scheme, which devices may propose.
        cache: JSON lines that are read at the start and added to; may serve several runs.
        measure: Time every candidate instead of predicting its latency.
    """

    def __init__(
        self,
        bench: Bench,
        calibration: Calibration,
        model: LatencyModel,
        texts: EncodedTexts,
        ranges: EncodedTexts,
        cache: Path,
        *,
        measure: bool = False,
    ) -> None:
        self._bench, self._calibration, self._model = bench, calibration, model
        self._texts, self._cache, self._measure = texts, cache, measure
        self._ranges = [ranges.batch([index], bench.workload.sequence_length) for index in range(len(ranges))]
        self._dense = self._dense_outputs()
        self._known = self._read()
        self.built = 0

    def outcome(self, recipe: Recipe) -> Outcome:
        """Return the outcome of a recipe; it is computed once."""
        key = self._key(recipe)
        if key not in self._known:
            self._known[key] = found = self._try(recipe)
            self.built += 1
            with self._cache.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, **asdict(found)}) + "\n")
        found = self._known[key]
        if self._measure:
            return found
        return Outcome(**asdict(found) | {"ratio": self._model.predict(recipe).value})

    def write(self, recipe: Recipe, path: Path) -> Artifact:
        """Build a candidate."""
        feeds = self._ranges if recipe.quantization.scheme == "static" else None
        write_onnx(apply_recipe(self._bench.network, self._calibration, recipe), recipe, path, feeds=feeds)
        return Artifact(path=path, precision=recipe.precision)

    def _try(self, recipe: Recipe) -> Outcome:
        started = time.monotonic()
        path = self._bench.folder / "trial.onnx"
        artifact = self.write(recipe, path)
        with self._bench.profiler.open(self._bench.profile, self._bench.workload, pinned=False) as session:
            handle = session.load(artifact, static=False)
            outputs = run_all(handle, self._texts, TASK, self._bench.workload, padded=False)
        ratio = self._model.predict(recipe).value
        if self._measure:
            effort = Effort(half_width=0.03, seconds=2.0, min_blocks=8, control_every=4)
            ratio = self._bench.race({"candidate": artifact}, effort)["candidate"].value
        outputs = outputs.astype(np.float64)
        return Outcome(
            divergence=float(kl_divergence(self._dense, outputs).mean()),
            agreement=float(agreement(self._dense, outputs).mean()),
            ratio=ratio,
            size_bytes=path.stat().st_size,
            seconds=time.monotonic() - started,
        )

    def _dense_outputs(self) -> np.ndarray:
        import torch

        module = to_module(self._bench.network, share=True)
        with torch.inference_mode():
            rows = [
                module(**{name: torch.from_numpy(array) for name, array in self._texts.batch([index]).items()})
                for index in range(len(self._texts))
            ]
        return torch.cat(rows).numpy().astype(np.float64)

    def _key(self, recipe: Recipe) -> str:
        if not hasattr(self, "_fingerprint"):
            content = hashlib.sha256(self._dense.tobytes())
            content.update(f"{self._bench.profile.profiler} {self._bench.workload} {self._measure}".encode())
            for feed in self._ranges:
                content.update(feed["input_ids"].tobytes())
            self._fingerprint = content.hexdigest()[:16]
        return f"{self._fingerprint}:{recipe.digest}"

    def _read(self) -> dict[str, Outcome]:
        if not self._cache.exists():
            return {}
        lines = [json.loads(line) for line in self._cache.read_text(encoding="utf-8").splitlines()]
        return {line.pop("key"): Outcome(**line) for line in lines}
