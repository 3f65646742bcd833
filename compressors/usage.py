"""How a downloaded model is loaded and run, in three lines of Python, in what it was measured in. Light: no torch."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict

ONNX_FILE = "model.onnx"
OPENVINO_FILE = "model.xml"
"""Its weights lie beside it, in ``model.bin``."""
PROGRAM_FILE = "model.pt2"

Kind = Literal["onnx", "openvino_ir", "torch"]
"""What a download holds."""

_FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Inputs of the model, and where a ``tokenizers.Encoding`` has them."""


class Runtime(BaseModel):
    """What a model was measured in, and so is to be run in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profiler: str = "onnxruntime"
    """Name of the profiler plugin."""
    precision: Literal["f32", "bf16"] | None = "f32"
    """Arithmetic that it was asked for where the model is floating point; ``None``: a ``.pt2`` file has its own."""
    form: Literal["onnx", "torch"] = "onnx"
    """Whether it opened ONNX files (or made its own of them) or torch models."""

    @property
    def on_gpu(self) -> bool:
        """Whether the model ran on an NVIDIA GPU."""
        return self.profiler == "torch_cuda"


def onnx_inputs(*, token_types: bool) -> tuple[str, ...]:
    """Return the names of a model's inputs, in order."""
    return tuple(name for name in _FIELDS if token_types or name != "token_type_ids")


def onnx_usage(inputs: Sequence[str], runtime: Runtime | None = None, file: str = ONNX_FILE) -> tuple[str, str, str]:
    """Return three lines that run an ONNX file, or OpenVINO's own, from inside its folder."""
    feeds = "{" + ", ".join(f'"{name}": [text.{_FIELDS[name]}]' for name in inputs) + "}"
    package, call = "onnxruntime", f'onnxruntime.InferenceSession("{file}").run(None, {feeds})[0]'
    if runtime is not None and runtime.profiler == "openvino":
        config = f'{{"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "{runtime.precision}"}}'
        package, call = "openvino", f'openvino.compile_model("{file}", "CPU", {config})({feeds})[0]'
    return (
        f"import {package}, tokenizers",
        'text = tokenizers.Tokenizer.from_file("tokenizer.json").encode("Some text.")',
        f"output = {call}",
    )


def torch_usage(inputs: Sequence[str], runtime: Runtime) -> tuple[str, str, str]:
    """Return three lines that run a folder with ``structure.json`` from inside it."""
    target = ['"cuda"'] * runtime.on_gpu + ["torch.bfloat16"] * (_measured_precision(runtime) == "bf16")
    moved = f".to({', '.join(target)})" if target else ""
    package = "paretune, torch" if "torch.bfloat16" in target else "paretune"
    return f"import {package}", f'model = paretune.load("."){moved}', _call(inputs, runtime)


def program_usage(inputs: Sequence[str], runtime: Runtime) -> tuple[str, str, str]:
    """Return three lines that run a ``.pt2`` file, which has its precision built in, from inside its folder."""
    if not runtime.on_gpu:
        return "import torch", f'model = torch.export.load("{PROGRAM_FILE}").module()', _call(inputs, runtime)
    return (
        "import torch, torch.export.passes",
        f'model = torch.export.passes.move_to_device_pass(torch.export.load("{PROGRAM_FILE}"), "cuda").module()',
        _call(inputs, runtime),
    )


def measured_notes(kind: Kind, runtime: Runtime) -> tuple[str, ...]:
    """Say what the measurements in the manifest were taken of and under, where the file does not show it."""
    if kind == "torch" and runtime.form == "onnx":
        return ("The measurements are those of the ONNX form; this one was not measured.",)
    if kind != "torch" and runtime.form == "torch":
        return (f"The measurements are those of the torch form on {runtime.profiler}; this file was not measured.",)
    if runtime.profiler == "openvino":
        return (
            f"Measured in OpenVINO with INFERENCE_PRECISION_HINT {runtime.precision}, as the lines of usage ask for: "
            "the file does not say it, and without the hint OpenVINO takes bf16 where the CPU has it.",
        )
    if runtime.on_gpu:
        return (
            "Measured on a GPU. Under provenance.measurements[].facts, models says in which arithmetic, and mode "
            "whether as a CUDA graph, which is faster than the calls of the lines of usage.",
        )
    return () if runtime.profiler == "onnxruntime" else (f"Measured by the profiler {runtime.profiler}.",)


def _call(inputs: Sequence[str], runtime: Runtime) -> str:
    arguments = ", ".join(inputs)
    given = f"*(tensor.cuda() for tensor in ({arguments}))" if runtime.on_gpu else arguments
    return f"output = model({given})  # int64 tensors [batch, sequence]"


def _measured_precision(runtime: Runtime) -> str | None:
    """The arithmetic of the torch form: float32 where another form was measured."""
    return runtime.precision if runtime.form == "torch" else "f32"
