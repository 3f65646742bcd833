"""Memory and time of calibration and of the option database, for encoders of several depths.

    python -m benchmarks.calibration_memory --layers 6 12 24

The encoders have BERT-base's widths and random weights; 12 layers are its 110 M parameters. Each step runs in a fresh
process that loads the model from its folder, as a job does, with everything that a job offers on a CPU. ``libraries``
is what such a process takes before it touches a model, ``peak`` the most that it ever took above that, the model
included, and ``x model`` the same as a multiple of the model's weights in float32. The options of a layer of this
width take minutes, so those of ``--option-layers`` layers are built, from the first on, which is followed by most
layers that scoring has to run.
"""

import argparse
import contextlib
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.tables import print_table
from compressors.anatomy import load_network
from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.options.scoring import ScoringSet
from compressors.tensors import named_tensors
from workers.operations.bench import BATCH
from workers.operations.options import build_database
from workers.operations.options import scoring_tokens

TASK = "sequence-classification"
_MIB = 2**20


@dataclass(frozen=True)
class Case:
    """A model folder with a work directory beside it.

    Attributes:
        folder: Holds ``model``; the calibration is written to it.
        layers: Depth of the encoder.
        tokens: Of the calibration text.
        length: Tokens of each text.
        option_layers: Layers whose options are built.
    """

    folder: Path
    layers: int
    tokens: int
    length: int
    option_layers: int

    @property
    def calibration_file(self) -> Path:
        """What one step leaves to the next."""
        return self.folder / "calibration.safetensors"


@dataclass(frozen=True)
class Cost:
    """What a step took; bytes and seconds.

    Attributes:
        libraries: Resident before the model was loaded.
        peak: The most that was resident, above ``libraries``.
        model: The model's weights in float32.
        seconds: Of the step, without loading the model.
        layers: That were done.
    """

    libraries: int
    peak: int
    model: int
    seconds: float
    layers: int


class Enough(Exception):
    """As many layers as were asked for are done."""


def write_model(folder: Path, layers: int) -> None:
    """Write a randomly initialised BERT with the base model's widths."""
    from transformers import BertConfig
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(num_hidden_layers=layers, num_labels=2)).save_pretrained(folder)


def run_calibration(case: Case) -> Cost:
    """Calibrate, and write the file."""

    def step() -> float:
        network = load_network(case.folder / "model", TASK)
        started = time.perf_counter()
        batches = [_batch(BATCH, case.length, seed) for seed in range(max(1, case.tokens // (BATCH * case.length)))]
        calibrate(network, batches, folder=case.folder / "parts").save(case.calibration_file)
        return time.perf_counter() - started

    return _measured(case, step, case.layers)


def run_options(case: Case) -> Cost:
    """Build the option database from the file."""
    layers = min(case.layers, case.option_layers)

    def stop(done: int, of: int) -> None:
        if done == 2 * layers < of:
            raise Enough

    def step() -> float:
        network = load_network(case.folder / "model", TASK)
        started = time.perf_counter()
        count = max(1, scoring_tokens(case.layers) // case.length)
        texts = [_batch(1, case.length, 1000 + seed) for seed in range(count)]
        calibration, scoring = Calibration.load(case.calibration_file), ScoringSet.collect(texts)
        with contextlib.suppress(Enough):
            build_database(network, calibration, scoring, progress=stop)
        return time.perf_counter() - started

    return _measured(case, step, layers)


STEPS: dict[str, Callable[[Case], Cost]] = {"calibration": run_calibration, "options": run_options}


def _measured(case: Case, step: Callable[[], float], layers: int) -> Cost:
    import transformers.models.bert.modeling_bert  # noqa: F401  (what loading the model imports)

    torch.ones(512, 512).matmul(torch.ones(512, 512))  # threads and buffers of the library are no matter of the step
    libraries = _status("VmRSS")
    seconds = step()
    peak = _status("VmHWM") - libraries
    tensors = named_tensors(load_network(case.folder / "model", TASK)).values()
    return Cost(libraries, peak, sum(tensor.numel() * 4 for tensor in tensors), seconds, layers)


def _status(name: str) -> int:
    """Return a size in bytes that the kernel keeps of this process. Unlike ``ru_maxrss``, it starts anew with exec."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def _batch(texts: int, length: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, 30_000, (texts, length), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def _fresh(step: Callable[[Case], Cost], case: Case) -> Cost:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(step, case).result()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 12, 24], help="depths of the encoders")
    parser.add_argument("--tokens", type=int, default=8192, help="of the calibration text")
    parser.add_argument("--length", type=int, default=64, help="tokens of each text")
    parser.add_argument("--option-layers", type=int, default=1, help="layers whose options are built")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    arguments = parser.parse_args()
    rows = []
    for layers in arguments.layers:
        folder = Path(tempfile.mkdtemp())
        try:
            write_model(folder / "model", layers)
            case = Case(folder, layers, arguments.tokens, arguments.length, arguments.option_layers)
            for name in arguments.steps:
                cost = _fresh(STEPS[name], case)
                rows.append(_row(name, layers, cost))
                print(*(f"{key}: {value}" for key, value in rows[-1].items()), sep=", ", flush=True)
        finally:
            shutil.rmtree(folder)
    print()
    print_table(rows)


def _row(name: str, layers: int, cost: Cost) -> dict[str, str]:
    return {
        "step": name,
        "layers": str(layers),
        "parameters (M)": f"{cost.model / 4e6:.1f}",
        "model (MiB)": f"{cost.model / _MIB:.0f}",
        "libraries (MiB)": f"{cost.libraries / _MIB:.0f}",
        "peak (MiB)": f"{cost.peak / _MIB:.0f}",
        "x model": f"{cost.peak / cost.model:.2f}",
        "layers done": str(cost.layers),
        "seconds": f"{cost.seconds:.1f}",
        "seconds/layer": f"{cost.seconds / cost.layers:.2f}",
    }


if __name__ == "__main__":
    main()
