"""How a downloaded model is loaded and run, in three lines of Python. Light: no torch."""

from collections.abc import Sequence

ONNX_FILE = "model.onnx"

_FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Inputs of the model, and where a ``tokenizers.Encoding`` has them."""


def onnx_inputs(*, token_types: bool) -> tuple[str, ...]:
    """Return the names of a model's inputs, in order."""
    return tuple(name for name in _FIELDS if token_types or name != "token_type_ids")


def onnx_usage(inputs: Sequence[str]) -> tuple[str, str, str]:
    """Return three lines that run the ONNX download from inside its folder."""
    feeds = ", ".join(f'"{name}": [text.{_FIELDS[name]}]' for name in inputs)
    return (
        "import onnxruntime, tokenizers",
        'text = tokenizers.Tokenizer.from_file("tokenizer.json").encode("Some text.")',
        f'output = onnxruntime.InferenceSession("{ONNX_FILE}").run(None, {{{feeds}}})[0]',
    )
