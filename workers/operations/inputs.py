"""What every operation of a job is told: paths and plain values, no credentials."""

import os
from pathlib import Path

from pydantic import BaseModel
from pydantic import ConfigDict

from profilers.registry import get_profiler
from profilers.types import DeviceProfile
from profilers.types import Form
from profilers.types import Objective
from profilers.types import Workload
from search.requests import Columns
from search.requests import Task


class DataFile(BaseModel):
    """A dataset as a file in the job's work directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    format: str
    """``jsonl`` | ``csv`` | ``parquet``."""


class JobInputs(BaseModel):
    """The inputs of a job on this host.

    Attributes:
        work: The job's work directory; what operations keep for later steps lies there.
        model: The verified Hugging Face folder.
        dataset: Evaluation data.
        calibration: Text for calibration, if it is separate.
        train: Text for recovery training, if it was given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    work: Path
    model: Path
    dataset: DataFile
    calibration: DataFile | None = None
    train: DataFile | None = None
    task: Task
    columns: Columns
    workload: Workload
    device: DeviceProfile
    objective: Objective = "p50"
    seed: int = 0

    @property
    def calibration_file(self) -> Path:
        """Gram matrices and removal orders, written by ``prepare``."""
        return self.work / "calibration.safetensors"

    @property
    def calibration_parts(self) -> Path:
        """Where the layers of a calibration lie that is not finished."""
        return self.work / "calibration"

    @property
    def option_units(self) -> Path:
        """Where the branches of option databases lie that are not finished."""
        return self.work / "options"

    @property
    def dense_outputs_file(self) -> Path:
        """Outputs of the dense model on every split, written by ``prepare``."""
        return self.work / "dense_outputs.npz"

    @property
    def form(self) -> Form:
        """What the device opens: ``onnx``, unless it has no use for such files."""
        return get_profiler(self.device.profiler).describe().form

    @property
    def reference_file(self) -> Path:
        """The dense model as a user would export it: what every latency is a ratio to. Written by ``prepare``."""
        return self.work / ("reference.onnx" if self.form == "onnx" else "reference.pt2")

    @property
    def timing_feeds_file(self) -> Path:
        """Real tokens at the workload's shape, written by ``prepare``."""
        return self.work / "timing_feeds.npz"

    @property
    def evaluation_workload(self) -> Workload:
        """The workload's shape on all cores: quality does not depend on the number of threads."""
        return self.workload.model_copy(update={"threads": len(os.sched_getaffinity(0))})

    @property
    def artifacts(self) -> Path:
        """Where candidates are built; they can always be built again."""
        return self.work / "artifacts"

    @property
    def blocks(self) -> Path:
        """Where the models are written that the latency table is measured with; of no use afterwards."""
        return self.work / "blocks"

    @property
    def graphs(self) -> Path:
        """Where equivalent graphs are written for their races; of no use afterwards."""
        return self.work / "graphs"

    @property
    def teacher_file(self) -> Path:
        """What the dense model says about the training texts, written by the first recovery."""
        return self.work / "teacher.safetensors"

    def recovery(self, name: str) -> Path:
        """Where one recovery keeps its checkpoint and its result."""
        return self.work / "recovery" / name

    def weights_file(self, sha256: str) -> Path:
        """Where the trained weights lie that a recipe names."""
        return self.work / "weights" / f"{sha256}.safetensors"
