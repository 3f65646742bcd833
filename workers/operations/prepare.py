"""Computed once for a job: calibration, dense outputs, the reference graph."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compressors.calibration import calibrate
from compressors.torch_module import to_module
from infra.database.models import JsonObject
from profilers.quality.evaluate import Split
from profilers.quality.label_fit import check_labels
from profilers.quality.metrics import correct
from workers.operations.bench import BATCH
from workers.operations.bench import Bench
from workers.operations.bench import bench
from workers.operations.enough_text import calibration_notice
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext

Outputs = NDArray[np.float32]

_SPLITS: tuple[Split, ...] = ("search", "holdout")


def prepare(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``JobInputs -> {"dense", "label_notice", "calibration_notice", "dense_size_bytes", "prepare_seconds"}``.

    Writes what later steps need. ``dense``: the dense model's accuracy on each part. ``label_notice`` and
    ``calibration_notice``: what the user should know of the labels, and of the text for calibration.

    Raises:
        InvalidDatasetError: The labels do not fit the model.
    """
    inputs = JobInputs.model_validate(arguments)
    work = bench(inputs, context)
    seconds: dict[str, float] = {}
    started = time.monotonic()
    if not inputs.calibration_file.exists():
        context.progress({"doing": "calibrating"})
        _write_calibration(work, context)
    seconds["calibrate"] = time.monotonic() - started
    started = time.monotonic()
    if not inputs.dense_outputs_file.exists():
        context.progress({"doing": "running the dense model"})
        _write_dense_outputs(work)
    seconds["dense_outputs"] = time.monotonic() - started
    notice = _check_labels(work)
    _write_arrays(inputs.timing_feeds_file, work.data.timing_feeds(inputs.workload.batch))
    started = time.monotonic()
    if not inputs.reference_file.exists():
        context.progress({"doing": "exporting the dense model"})
        _export(inputs).rename(inputs.reference_file)
    seconds["export"] = time.monotonic() - started
    return {
        "dense": _dense_quality(work),
        "label_notice": notice,
        "calibration_notice": _look_at_calibration(work),
        "dense_size_bytes": inputs.reference_file.stat().st_size,
        "prepare_seconds": seconds,
    }


def _write_calibration(work: Bench, context: OperationContext) -> None:
    """Calibrate layer by layer; what an earlier attempt has finished is in the folder."""
    folder = work.inputs.calibration_parts
    found = calibrate(
        work.network,
        work.calibration_batches(),
        folder=folder,
        progress=lambda done, of: context.progress({"doing": "calibrating", "done": done, "of": of}),
    )
    found.save(work.inputs.calibration_file)
    shutil.rmtree(folder)


def _export(inputs: JobInputs) -> Path:
    from compressors.export.baselines import build_baseline
    from compressors.export.torch_baselines import build_torch_baseline

    directory = inputs.work / "export"
    if inputs.form == "torch":
        return build_torch_baseline("fp32", inputs.model, inputs.task, directory)
    return build_baseline("fp32", inputs.model, inputs.task, directory).path


def _write_dense_outputs(work: Bench) -> None:
    module = to_module(work.network, share=True)
    outputs = {"search": _run(work, module, "search"), "holdout": _run(work, module, "holdout")}
    _write_arrays(work.inputs.dense_outputs_file, outputs)


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` file that is there completely or not at all."""
    partial = path.with_name(f"partial.{path.name}")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # the stub takes every keyword for an option
    partial.rename(path)


def _run(work: Bench, module: torch.nn.Module, split: Split) -> Outputs:
    """Return the module's outputs in the order of the split; padding does not change what a float model computes."""
    rows: dict[int, Outputs] = {}
    with torch.inference_mode():
        for positions, feeds in work.data.padded_batches(split, BATCH):
            outputs = module(**{name: torch.from_numpy(array) for name, array in feeds.items()}).numpy()
            rows.update(zip(positions, outputs, strict=True))
    return np.stack([rows[position] for position in range(len(rows))]).astype(np.float32)


def _check_labels(work: Bench) -> str | None:
    labels = {str(split): found for split in _SPLITS if (found := work.data.labels[split]) is not None}
    if not labels:
        return None
    predicted = {str(split): work.dense_outputs[split].argmax(axis=1) for split in _SPLITS}
    return check_labels(predicted, labels, work.anatomy.labels)


def _look_at_calibration(work: Bench) -> str | None:
    texts = len(work.data.texts["calibration"])
    separate = work.inputs.calibration is not None
    return calibration_notice(work.calibration, texts, texts + len(work.data.scoring), separate=separate)


def _dense_quality(work: Bench) -> JsonObject:
    quality: JsonObject = {}
    for split in _SPLITS:
        labels = work.data.labels[split]
        if labels is not None:
            quality[split] = float(correct(work.dense_outputs[split].astype(np.float64), labels).mean())
    return quality
