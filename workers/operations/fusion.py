"""Holds the fused operators of a measured model and of the reference against what their blocks should become.

Light: no torch.
"""

from collections.abc import Mapping

from compressors.export.fusion import fusions
from infra.database.models import JsonObject
from profilers.measure import executed_operators
from profilers.protocol import Handle
from profilers.types import Fusions
from profilers.types import Measurement
from workers.operations.inputs import JobInputs

UNKNOWN = {
    "torch_cuda": "A torch model is run as it is written; there is no graph of a runtime in which to count.",
}
"""Why a profiler does not tell which blocks are fused."""
NOT_COUNTED = "The operators could not be counted, for example because there was no room for the optimised graph."
_TELLING = ("onnxruntime", "openvino")
_NO_WORD = "The profiler {profiler} does not name the fused operators of the graphs that it executes."


def count_fusions(
    inputs: JobInputs, measurement: Measurement, handle: Handle, expected: JsonObject, reference: Mapping[str, int]
) -> Measurement:
    """Return a measurement with the fusions of its loaded model: it costs one more load of the file.

    Args:
        inputs: The job.
        measurement: Of the model.
        handle: The model.
        expected: ``{"model", "reference"}``: what the blocks of both should become
            (:func:`compressors.export.fusion.expected_fusions`).
        reference: Operators that are executed for the reference; empty where the runtime does not tell.
    """
    found = executed_operators(handle) if tells(inputs) else {}
    return judge_fusions(inputs, measurement, found, expected, reference)


def judge_fusions(
    inputs: JobInputs,
    measurement: Measurement,
    found: Mapping[str, int],
    expected: JsonObject,
    reference: Mapping[str, int],
) -> Measurement:
    """Return a measurement with the fusions among counted operators; see :func:`count_fusions`."""
    profiler = inputs.device.profiler
    if not tells(inputs):
        reason = UNKNOWN.get(profiler, _NO_WORD.format(profiler=profiler))
        return measurement.model_copy(update={"fusion_unknown": reason})
    if not found or not reference:
        return measurement.model_copy(update={"fusion_unknown": NOT_COUNTED})
    counted = Fusions(
        expected=expected["model"],
        found=fusions(found, expected["model"]),
        reference_expected=expected["reference"],
        reference_found=fusions(reference, expected["reference"]),
    )
    return measurement.model_copy(update={"fusions": counted, "fusion_parity": counted.parity})


def tells(inputs: JobInputs) -> bool:
    """Whether the job's runtime names its fused operators."""
    return inputs.device.profiler in _TELLING
