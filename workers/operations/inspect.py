"""Load the model and the data once, and say what they are."""

from infra.database.models import JsonObject
from profilers.registry import get_profiler
from search.requests import Recover
from workers.operations.bench import bench
from workers.operations.formats import device_defaults
from workers.operations.inputs import JobInputs
from workers.operations.training import training_examples
from workers.runner.operation import OperationContext


def inspect(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "training"} -> {"anatomy", "capabilities", "labelled", "splits", "graph_defaults"}``.

    ``training``: the recovery training or repair of the job, or ``None``.

    Raises:
        InvalidModelError: The model does not load, does not fit the task or the workload, or is too large for one file.
        InvalidDatasetError: The data lacks a column, has too few examples, or labels that the model does not know.
        UnavailableError: The device is not there.
    """
    from compressors.export.limits import require_one_file

    inputs = JobInputs.model_validate(arguments["inputs"])
    profiler = get_profiler(inputs.device.profiler)
    capabilities = profiler.describe()
    work = bench(inputs, context)
    anatomy = work.anatomy
    if capabilities.form == "onnx":
        require_one_file(anatomy)
    data = work.data
    if arguments["training"] is not None:
        training = Recover.model_validate(arguments["training"])
        # What is wrong with the training text is said now, not after the search.
        training_examples(inputs, anatomy, use_labels=training.use_labels)
    return {
        "anatomy": anatomy.model_dump(mode="json"),
        "capabilities": capabilities.model_dump(mode="json"),
        "labelled": data.labelled,
        "splits": data.sizes,
        "graph_defaults": device_defaults(inputs.device.profiler, capabilities).model_dump(mode="json"),
    }
