"""Peak memory of a training."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.recovery.bench import Bench
from benchmarks.recovery.bench import Budget
from benchmarks.recovery.bench import Rows
from benchmarks.recovery.quality import LOSSES
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import TrainingData
from compressors.recovery.objective import state_layers_for
from compressors.recovery.prepare import prepare
from compressors.recovery.recover import recover
from compressors.recovery.teacher import TeacherCache
from compressors.torch_module import to_module

BATCH, TOKENS = 32, 64


def peak_memory(bench: Bench, _: Sequence[Budget]) -> Rows:
    """Peak memory of a training in a fresh process, beyond what the libraries take, at batch 32 x 64 tokens."""
    data = texts_of_equal_length(bench.train.input_ids)
    dense_bytes = 4 * sum(parameter.numel() for parameter in to_module(bench.network).parameters())
    rows = []
    for name in ("logits", "logits + states"):
        config = Budget(steps=12).of(bench.config, seed=0)
        config = config.model_copy(update={"losses": LOSSES[name], "batch_size": BATCH, "evaluations": 2})
        peak = peak_of_training(bench, data, config)
        rows.append(
            {
                "loss": name,
                "peak MB": f"{peak / 1e6:.0f}",
                "dense fp32 MB": f"{dense_bytes / 1e6:.0f}",
                "ratio": f"{peak / dense_bytes:.2f}",
            }
        )
    return rows


def texts_of_equal_length(input_ids: Sequence[list[int]]) -> TrainingData:
    """Return twenty batches of texts with 64 tokens each, cut from the given ones joined together."""
    long = [row for row in input_ids if len(row) > 1]
    stream = [token for row in long for token in row[1:-1]]
    width = TOKENS - 2
    ids = [[long[0][0], *stream[start : start + width], long[0][-1]] for start in range(0, len(stream) - width, width)]
    return TrainingData(ids[: 20 * BATCH])


def peak_of_training(bench: Bench, data: TrainingData, config: RecoveryConfig) -> int:
    """Write student and teacher to files and train in another process; return the bytes that this took at most."""
    student = bench.student()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        examples = prepare(data, config).examples
        states = state_layers_for(student, len(bench.network.layers), config)
        TeacherCache.build(bench.network, examples, state_layers=states, path=folder / "teacher.safetensors")
        torch.save(student, folder / "student.pt")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(peak_bytes, folder, data, config, torch.get_num_threads()).result()


def peak_bytes(folder: Path, data: TrainingData, config: RecoveryConfig, threads: int) -> int:
    """Train in this (fresh) process, and return how far its resident memory rose (Linux).

    Counted is the student, what is held of the teacher's outputs, gradients, moments, the best weights and activations,
    and every page of a file that is mapped. Not counted are the libraries and the encoded texts.
    """
    torch.set_num_threads(threads)
    prepared = prepare(data, config)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts from here
    student = torch.load(folder / "student.pt", weights_only=False)  # written by this benchmark
    recover(student, TeacherCache.load(folder / "teacher.safetensors"), prepared, config)
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))
