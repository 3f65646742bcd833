"""Load the model and the data once, and say what they are."""

from infra.database.models import JsonObject
from profilers.registry import get_profiler
from search.prepared import GraphDefaults
from workers.operations.bench import bench
from workers.operations.inputs import JobInputs
from workers.operations.training import training_examples
from workers.runner.operation import OperationContext


def inspect(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``JobInputs -> {"anatomy", "capabilities", "labelled", "splits", "graph_defaults"}``.

    Raises:
        InvalidModelError: The model does not load, does not fit the task or the workload, or is too large for one file.
        InvalidDatasetError: The data lacks a column, has too few examples, or labels that the model does not know.
        UnavailableError: The device is not there.
    """
    from compressors.export.defaults import default_graph
    from compressors.export.defaults import default_quantization
    from compressors.export.limits import require_one_file

    inputs = JobInputs.model_validate(arguments)
    profiler = get_profiler(inputs.device.profiler)
    capabilities = profiler.describe()
    work = bench(inputs, context)
    anatomy = work.anatomy
    if capabilities.form == "onnx":
        require_one_file(anatomy)
    data = work.data
    if inputs.train is not None:
        training_examples(inputs, anatomy)  # what is wrong with the training text is said now, not after the search
    precision = "bf16" if "bf16" in capabilities.precisions else "f32"
    graph = default_graph(inputs.device.profiler, {8} if precision == "f32" else set())
    quantization = default_quantization(inputs.device.profiler, saturating=capabilities.saturating_int8)
    floats = default_graph(inputs.device.profiler, set())
    defaults = GraphDefaults(graph=graph, float_graph=floats, quantization=quantization, precision=precision)
    return {
        "anatomy": anatomy.model_dump(mode="json"),
        "capabilities": capabilities.model_dump(mode="json"),
        "labelled": data.labelled,
        "splits": data.sizes,
        "graph_defaults": defaults.model_dump(mode="json"),
    }
