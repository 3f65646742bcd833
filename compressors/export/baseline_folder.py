"""The download of a baseline: the file that was measured, as its own tool wrote it, with companions and manifest."""

import shutil
from pathlib import Path

from compressors.export.folder import finish_folder
from compressors.export.folder import input_names
from compressors.export.manifest import Manifest
from compressors.export.manifest import Provenance
from compressors.network import EncoderNetwork
from compressors.recipe import BaselineCandidate
from compressors.usage import ONNX_FILE
from compressors.usage import OPENVINO_FILE
from compressors.usage import PROGRAM_FILE
from compressors.usage import Kind
from compressors.usage import onnx_usage
from compressors.usage import program_usage

_FILES: dict[Kind, str] = {"onnx": ONNX_FILE, "openvino_ir": OPENVINO_FILE, "torch": PROGRAM_FILE}


def export_baseline_folder(
    path: Path,
    kind: Kind,
    network: EncoderNetwork,
    baseline: BaselineCandidate,
    model_dir: Path,
    directory: Path,
    provenance: Provenance,
) -> Manifest:
    """Copy a baseline's file and write what belongs beside it.

    Args:
        path: The ONNX file, the ``.xml`` of an OpenVINO model (its ``.bin`` beside it), or the ``.pt2`` file.
        kind: Which of them it is.
        network: The dense network.
        baseline: The baseline's name.
        model_dir: Hugging Face folder of the dense model.
        directory: Where to write; made if needed.
        provenance: What the caller knows about task, data, latency and quality.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / _FILES[kind]
    shutil.copyfile(path, file)
    if kind == "openvino_ir":
        shutil.copyfile(path.with_suffix(".bin"), file.with_suffix(".bin"))
    inputs, runtime = input_names(network), provenance.runtime
    usage = program_usage(inputs, runtime) if kind == "torch" else onnx_usage(inputs, runtime, file.name)
    notes = [f"This is the baseline {baseline.name}: the file is as its own tool wrote it."]
    if kind == "torch":
        notes.append("A .pt2 file belongs to the torch version that wrote it.")
    return finish_folder(kind, network, baseline, model_dir, directory, provenance, usage=usage, notes=tuple(notes))
