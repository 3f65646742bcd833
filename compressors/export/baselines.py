"""What a user could have had in one line, built the way that the user would build it."""

import inspect
import tempfile
from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from compressors.anatomy import load_reference_model
from infra.errors import InvalidInputError
from infra.errors import UnavailableError

Feeds = dict[str, NDArray[np.int64]]

CALIBRATION_SAMPLES = 300
"""Samples that NNCF's quantisation reads by default."""


@dataclass(frozen=True)
class BaselineArtifact:
    """A baseline on disk.

    Attributes:
        path: The ONNX file, or the ``.xml`` of an OpenVINO model (its ``.bin`` lies beside it).
        format: ``onnx`` | ``openvino_ir``.
        size_bytes: Bytes of all its files.
        precision: What its runtime is to be asked to compute in where the model is floating point.
    """

    path: Path
    format: Literal["onnx", "openvino_ir"]
    size_bytes: int
    precision: Literal["f32", "bf16"] = "f32"


def build_baseline(
    name: str,
    model_dir: Path,
    task: str,
    directory: Path,
    calibration_feeds: Iterable[Feeds] | None = None,
    *,
    saturating: bool = False,
    bf16: bool = False,
) -> BaselineArtifact:
    """Build one baseline of the model in ``model_dir``.

    Args:
        name: ``fp32``: torch's ONNX export with its defaults. ``int8_one_liner``: ONNX Runtime's dynamic int8
            quantisation of that, per channel. ``int8_static``: its static one, per channel, of the matrix products.
            ``openvino_bf16``: the ``fp32`` file, which OpenVINO runs with the bf16 hint. ``openvino_int8``: NNCF's
            post-training quantisation of it.
        model_dir: Hugging Face folder.
        task: ``sequence-classification`` | ``embedding``.
        directory: Where files are written; an ``fp32`` file that is already there is used again.
        calibration_feeds: Model inputs, int64 ``[batch, sequence]``; needed for the static formats, ``int8_static`` and
            ``openvino_int8``.
        saturating: The device's sums of int8 products saturate; ``int8_static`` then keeps to 7 bits, as the
            documentation of ONNX Runtime tells its users to.
        bf16: The device is faster in bf16. ``openvino_int8`` is then for the bf16 hint, as its floating-point part is
            for whoever opens it without a hint there.

    Raises:
        InvalidInputError: The name is unknown, or ``calibration_feeds`` is missing.
        UnavailableError: OpenVINO or NNCF is not installed.
    """
    builders: dict[str, Callable[[Path], BaselineArtifact]] = {
        "fp32": _onnx_artifact,
        "int8_one_liner": lambda dense: _int8_one_liner(dense, directory / "int8_one_liner.onnx"),
        "int8_static": lambda dense: _int8_static(
            dense, directory / "int8_static.onnx", _needed(calibration_feeds, name), saturating=saturating
        ),
        "openvino_bf16": lambda dense: replace(_onnx_artifact(dense), precision="bf16"),
        "openvino_int8": lambda dense: replace(
            quantize_openvino(dense, directory / "openvino_int8.xml", _needed(calibration_feeds, name)),
            precision="bf16" if bf16 else "f32",
        ),
    }
    if name not in builders:
        raise InvalidInputError(f"There is no baseline {name!r}.", hint=f"Baselines: {', '.join(builders)}.")
    dense = directory / "fp32.onnx"
    if not dense.exists():
        _export(model_dir, task, dense)
    return builders[name](dense)


def export_module(module: torch.nn.Module, path: Path, output_name: str, *, inputs: tuple[str, ...]) -> None:
    """Export a module with ``torch.onnx.export``'s defaults, batch and sequence dynamic.

    Args:
        module: Takes ``input_ids``, ``attention_mask`` (and ``token_type_ids``), returns one tensor.
        path: The file to write; it appears only when it is complete.
        output_name: Name of the output.
        inputs: Names of the inputs, in the order in which the module takes them.
    """
    # Sizes of 0 and 1 are special to the tracer, so the example has more of everything.
    ids = torch.arange(2 * 8).reshape(2, 8) % 4 + 1
    example = (ids, torch.ones_like(ids), torch.zeros_like(ids))[: len(inputs)]
    dynamic = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            verbose=False,
            input_names=list(inputs),
            output_names=[output_name],
            dynamic_shapes=tuple({0: dynamic, 1: dynamic} for _ in inputs),
        )
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    program.save(str(partial))
    partial.rename(path)


def _export(model_dir: Path, task: str, path: Path) -> None:
    module = load_reference_model(model_dir, task)
    output = "logits" if task == "sequence-classification" else "sentence_embedding"
    export_module(module, path, output, inputs=tuple(inspect.signature(module.forward).parameters))


def _onnx_artifact(path: Path) -> BaselineArtifact:
    return BaselineArtifact(path, "onnx", path.stat().st_size)


def _int8_one_liner(dense: Path, path: Path) -> BaselineArtifact:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        cleaned = Path(scratch) / "cleaned.onnx"
        drop_weight_shapes(dense, cleaned)
        quantize_dynamic(cleaned, path, weight_type=QuantType.QInt8, per_channel=True)
    return _onnx_artifact(path)


def _int8_static(dense: Path, path: Path, feeds: Iterable[Feeds], *, saturating: bool) -> BaselineArtifact:
    # By default the function also quantises norms, sums and activations, which changes many more predictions.
    from onnxruntime.quantization import CalibrationDataReader
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_static

    names = [value.name for value in onnx.load(dense).graph.input]

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Feeds | None:
            found = next(self._feeds, None)
            return None if found is None else {name: found[name] for name in names}

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        cleaned = Path(scratch) / "cleaned.onnx"
        drop_weight_shapes(dense, cleaned)
        quantize_static(
            cleaned,
            path,
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=saturating,
            op_types_to_quantize=["MatMul", "Gemm"],
        )
    return _onnx_artifact(path)


def drop_weight_shapes(source: Path, target: Path) -> None:
    """Copy an ONNX file without the shapes that the exporter noted for its weights.

    ONNX Runtime's quantiser transposes weights but not those notes, and then refuses to read the file.
    """
    model = onnx.load(source)
    weights = {tensor.name for tensor in model.graph.initializer}
    activations = [value for value in model.graph.value_info if value.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(activations)
    onnx.save(model, target)


def _needed(feeds: Iterable[Feeds] | None, name: str) -> Iterable[Feeds]:
    if feeds is None:
        raise InvalidInputError(
            f"The baseline {name} needs calibration data.", hint="Pass calibration_feeds with model inputs."
        )
    return feeds


def quantize_openvino(dense: Path, path: Path, calibration_feeds: Iterable[Feeds]) -> BaselineArtifact:
    """Quantise an ONNX file with NNCF's defaults for transformers.

    Args:
        dense: The file.
        path: The ``.xml`` to write.
        calibration_feeds: Model inputs, int64 ``[batch, sequence]``.

    Raises:
        UnavailableError: OpenVINO or NNCF is not installed.
    """
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise UnavailableError(
            f"The baseline openvino_int8 cannot be built: {error}.", hint="Install the extra: paretune[openvino]."
        ) from error
    model = openvino.Core().read_model(dense)
    names = {port.get_any_name() for port in model.inputs}
    samples = [{key: value for key, value in feeds.items() if key in names} for feeds in calibration_feeds]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(samples[:CALIBRATION_SAMPLES]),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=CALIBRATION_SAMPLES,
    )
    openvino.save_model(quantized, path, compress_to_fp16=False)
    size = path.stat().st_size + path.with_suffix(".bin").stat().st_size
    return BaselineArtifact(path, "openvino_ir", size)
