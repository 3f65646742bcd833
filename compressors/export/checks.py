"""Checks that an exported form is the same function as the torch module that it was made from."""

import copy
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from compressors.export.manifest import ExportCheck
from compressors.export.onnx.embeddings import has_token_types
from compressors.export.simulation import rounded_module
from compressors.network import EncoderNetwork
from compressors.network import Linear
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.tensors import named_linears
from compressors.torch_module import to_module
from infra.errors import ParetuneError

Feeds = dict[str, NDArray[np.int64]]
Runner = Callable[[Feeds], NDArray[np.float32]]

SHAPES = ((1, 1), (1, 17), (3, 9), (2, 32))
"""``(batch, sequence)`` of the test inputs; batches above one are padded to different lengths."""

FLOAT_TOLERANCE = 2e-4
"""Root mean square error of float32 outputs, relative to their spread: rounding in another order."""

ROUNDING_FACTOR = 3.0
"""How much larger than the error of :func:`rounded_module` that of a file with few bits may be."""


_TEXTS = 16
_ROWS = 8


class ExportMismatchError(ParetuneError):
    """An exported form computes something else than the module it was made from; it is not offered."""

    code = "export-mismatch"
    title = "The export does not match"


def example_feeds(network: EncoderNetwork, seed: int = 0, shapes: tuple[tuple[int, int], ...] = SHAPES) -> list[Feeds]:
    """Return deterministic model inputs of ``shapes`` with random tokens and padded rows."""
    generator = np.random.default_rng(seed)
    vocabulary, types = network.embeddings.word.shape[0], network.embeddings.token_type
    feeds = []
    for batch, sequence in shapes:
        length = min(sequence, network.max_sequence_length)
        mask = np.ones((batch, length), np.int64)
        for row in range(1, batch):
            mask[row, generator.integers(1, length + 1) :] = 0
        item: Feeds = {"input_ids": generator.integers(0, vocabulary, (batch, length)), "attention_mask": mask}
        if types is not None and has_token_types(network.embeddings):
            item["token_type_ids"] = generator.integers(0, types.shape[0], (batch, length))
        feeds.append(item)
    return feeds


def static_feeds(network: EncoderNetwork, shape: tuple[int, int], texts: list[Feeds] | None = None) -> list[Feeds]:
    """Return model inputs of one ``(batch, sequence)``: of those ``texts`` that are so long, or random ones.

    Of the random ones there are so many that the error of rounding does not hang on a few outputs; every second batch
    is padded in every row.
    """
    batch, sequence = shape
    fitting = [item for item in texts or () if item["input_ids"].shape[1] == sequence]
    if fitting:
        rows = {name: np.concatenate([item[name] for item in fitting]) for name in fitting[0]}
        batches = max(1, _TEXTS // batch)
        chosen = np.arange(batches * batch).reshape(batches, batch) % len(rows["input_ids"])
        return [{name: array[some] for name, array in rows.items()} for some in chosen]
    feeds = example_feeds(network, shapes=(shape,) * max(2, _ROWS // batch))
    for item in feeds[1::2]:
        item["attention_mask"][:, max(1, sequence // 2) :] = 0
    return feeds


def onnx_runner(path: Path) -> Runner:
    """Return a function that runs the first output of an ONNX file in ONNX Runtime with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {item.name for item in session.get_inputs()}

    def run(feeds: Feeds) -> NDArray[np.float32]:
        output: NDArray[np.float32] = session.run(None, {key: feeds[key] for key in feeds if key in names})[0]
        return output

    return run


def module_runner(module: torch.nn.Module) -> Runner:
    """Return a function that runs a torch module on those arrays that it takes."""
    names = set(inspect.signature(module.forward).parameters)

    def run(feeds: Feeds) -> NDArray[np.float32]:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(item) for name, item in feeds.items() if name in names}
            output: NDArray[np.float32] = module(**tensors).numpy()
        return output

    return run


def compare(exported: Runner, reference: Runner, feeds: list[Feeds], tolerance: float = FLOAT_TOLERANCE) -> ExportCheck:
    """Run both on ``feeds`` and describe the difference; it is not judged here."""
    pairs = [(exported(item), reference(item)) for item in feeds]
    difference = np.concatenate([(left - right).ravel() for left, right in pairs])
    expected = np.concatenate([right.ravel() for _, right in pairs])
    spread = float(expected.std()) or 1.0
    return ExportCheck(
        largest_difference=float(np.abs(difference).max()),
        relative_error=float(np.sqrt(np.mean(np.square(difference)))) / spread,
        tolerance=tolerance,
        shapes=tuple((item["input_ids"].shape[0], item["input_ids"].shape[1]) for item in feeds),
    )


def require(check: ExportCheck, form: str) -> ExportCheck:
    """Return ``check`` if it is within its tolerance.

    Raises:
        ExportMismatchError: It is not, or an output is not a number.
    """
    if not check.relative_error <= check.tolerance:
        raise ExportMismatchError(
            f"The {form} differs from the torch module by {check.relative_error:.2g} of the outputs' spread; "
            f"{check.tolerance:.2g} is allowed.",
            hint="This is a fault of the exporter: please report it with the recipe.",
        )
    return check


def check_onnx(
    path: Path,
    network: EncoderNetwork,
    quantization: QuantizationRecipe,
    *,
    float_path: Path | None = None,
    texts: list[Feeds] | None = None,
    static: tuple[int, int] | None = None,
) -> ExportCheck:
    """Compare an ONNX file with the network's torch module on inputs of several shapes, or of its only one.

    Args:
        path: The file that is offered.
        network: What it was written from.
        quantization: How its layers with few bits are computed.
        float_path: The same graph with everything in float32, if ``path`` has fewer bits: it is held to the float32
            tolerance, which no error of the graph's structure passes.
        texts: Real inputs for a file with few bits, in place of random tokens: calibrated grids are made for text.
        static: ``(batch, sequence)`` that is written into the files.

    Raises:
        ExportMismatchError: A difference exceeds its tolerance.
    """
    reference = module_runner(to_module(network, share=True))
    feeds = example_feeds(network) if static is None else static_feeds(network, static)
    if float_path is not None:
        require(compare(onnx_runner(float_path), reference, feeds), "float32 form of the ONNX graph")
        if static is not None:
            feeds = static_feeds(network, static, texts)
        elif texts:
            feeds = texts[:_TEXTS]
    tolerance = rounding_tolerance(network, quantization, feeds)
    return require(compare(onnx_runner(path), reference, feeds, tolerance), "ONNX file")


def rounding_tolerance(network: EncoderNetwork, quantization: QuantizationRecipe, feeds: list[Feeds]) -> float:
    """Return the relative error that is allowed for the network's bit-widths on ``feeds``."""
    if not is_rounded(network, quantization):
        return FLOAT_TOLERANCE
    exact, rounded = to_module(network, share=True), rounded_module(network, quantization)
    expected = compare(module_runner(rounded), module_runner(exact), feeds).relative_error
    return FLOAT_TOLERANCE + ROUNDING_FACTOR * expected


def is_rounded(network: EncoderNetwork, quantization: QuantizationRecipe) -> bool:
    """Whether the file holds anything in fewer than 32 bits."""
    return quantization.embedding_bits < 32 or any(linear.bits < 32 for linear in linears(network))


def in_float32(network: EncoderNetwork, recipe: Recipe) -> tuple[EncoderNetwork, Recipe]:
    """Return copies of both with nothing in fewer bits: the same graph, in which rounding hides no error."""
    exact = copy.deepcopy(network)
    for linear in linears(exact):
        linear.bits = 32
    return exact, recipe.model_copy(update={"quantization": QuantizationRecipe()})


def linears(network: EncoderNetwork) -> list[Linear]:
    """Return all linear layers of the encoder, the task head not included."""
    return [linear for layer in network.layers for _, linear in named_linears(layer)]
