"""The ONNX download: model, tokenizer, configuration and manifest, checked against torch."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from compressors.export.checks import ExportMismatchError
from compressors.export.checks import Feeds
from compressors.export.checks import check_onnx
from compressors.export.checks import in_float32
from compressors.export.checks import is_rounded
from compressors.export.folder import finish_folder
from compressors.export.folder import input_names
from compressors.export.manifest import ExportCheck
from compressors.export.manifest import Manifest
from compressors.export.manifest import Provenance
from compressors.export.onnx import collect_ranges
from compressors.export.onnx import write_onnx
from compressors.export.onnx.ranges import Ranges
from compressors.network import EncoderNetwork
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from compressors.usage import ONNX_FILE
from compressors.usage import onnx_usage

STATIC_FILE = "model_static.onnx"


def export_onnx_folder(
    network: EncoderNetwork,
    recipe: Recipe,
    model_dir: Path,
    directory: Path,
    provenance: Provenance,
    *,
    static: tuple[int, int] | None = None,
    feeds: Iterable[Feeds] | None = None,
) -> Manifest:
    """Write the complete ONNX folder of a candidate.

    Args:
        network: The candidate, after the recipe's methods were applied.
        recipe: Its recipe.
        model_dir: Hugging Face folder of the dense model, for tokenizer and configuration.
        directory: Where to write; made if needed.
        provenance: What the caller knows about task, data, latency and quality.
        static: ``(batch, sequence)``: also write :data:`STATIC_FILE` with that shape fixed, if it passes its own check.
        feeds: Calibration inputs, the same that the candidate was built with; needed by the static scheme.

    Returns:
        The manifest, as written.

    Raises:
        ExportMismatchError: The ONNX file does not compute what the torch module computes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    texts = list(feeds) if feeds is not None else None
    ranges = collect_ranges(network, recipe, texts) if texts is not None else None
    path = write_onnx(network, recipe, directory / ONNX_FILE, ranges=ranges).path
    check = _check(network, recipe, path, texts)
    static_check: ExportCheck | None = None
    notes: tuple[str, ...] = ()
    if static is not None:
        static_check, note = _write_static(network, recipe, directory / STATIC_FILE, static, ranges, texts)
        notes = (note,)
    return finish_folder(
        "onnx",
        network,
        RecipeCandidate(recipe=recipe),
        model_dir,
        directory,
        provenance,
        usage=onnx_usage(input_names(network), provenance.runtime),
        notes=notes,
        check=check,
        static_check=static_check,
    )


def _write_static(
    network: EncoderNetwork,
    recipe: Recipe,
    path: Path,
    shape: tuple[int, int],
    ranges: Ranges | None,
    texts: list[Feeds] | None,
) -> tuple[ExportCheck | None, str]:
    """Write the file with a fixed shape unless it is not the same function; returns its check and what to say of it."""
    write_onnx(network, recipe, path, static=shape, ranges=ranges)
    size = f"batch {shape[0]} and sequence length {shape[1]}"
    try:
        check = _check(network, recipe, path, texts, shape)
    except ExportMismatchError as error:
        path.unlink()
        return None, f"There is no {path.name} for {size}: it did not pass its check. {error.message}"
    measured = "It is the form that was measured" if recipe.graph.static_shape else f"{ONNX_FILE} is what was measured"
    return check, f"{path.name} accepts {size} only. {measured}."


def _check(
    network: EncoderNetwork,
    recipe: Recipe,
    path: Path,
    texts: list[Feeds] | None,
    static: tuple[int, int] | None = None,
) -> ExportCheck:
    if not is_rounded(network, recipe.quantization):
        return check_onnx(path, network, recipe.quantization, static=static)
    exact, exact_recipe = in_float32(network, recipe)
    with tempfile.TemporaryDirectory() as scratch:
        float_path = write_onnx(exact, exact_recipe, Path(scratch) / "float.onnx", static=static).path
        return check_onnx(path, network, recipe.quantization, float_path=float_path, texts=texts, static=static)
