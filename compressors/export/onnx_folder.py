"""The ONNX download: model, tokenizer, configuration and manifest, checked against torch."""

import copy
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from compressors.export.checks import Feeds
from compressors.export.checks import check_onnx
from compressors.export.checks import is_rounded
from compressors.export.checks import linears
from compressors.export.companions import copy_companions
from compressors.export.companions import model_digests
from compressors.export.manifest import ExportCheck
from compressors.export.manifest import Manifest
from compressors.export.manifest import Provenance
from compressors.export.manifest import file_entries
from compressors.export.manifest import package_versions
from compressors.export.manifest import write_manifest
from compressors.export.onnx import collect_ranges
from compressors.export.onnx import write_onnx
from compressors.export.onnx.embeddings import has_token_types
from compressors.network import ClassificationHead
from compressors.network import EncoderNetwork
from compressors.recipe import BaselineCandidate
from compressors.recipe import Candidate
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from compressors.recipe import candidate_digest
from compressors.usage import ONNX_FILE
from compressors.usage import onnx_inputs
from compressors.usage import onnx_usage


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
        static: ``(batch, sequence)``: also write ``model_static.onnx`` with that shape fixed.
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
    notes: tuple[str, ...] = ()
    if static is not None:
        write_onnx(network, recipe, directory / "model_static.onnx", static=static, ranges=ranges)
        notes = (f"model_static.onnx accepts batch {static[0]} and sequence length {static[1]} only.",)
    return _finish(network, RecipeCandidate(recipe=recipe), model_dir, directory, provenance, check, notes)


def export_onnx_file(
    path: Path, network: EncoderNetwork, name: BaselineCandidate, model_dir: Path, directory: Path, prov: Provenance
) -> Manifest:
    """Write the folder of a baseline that won: its ONNX file as it is, with the same companions and manifest.

    ``network`` is the dense network; the file at ``path`` is copied.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, directory / ONNX_FILE)
    notes = (f"This is the baseline {name.name}: no compressed candidate was better.",)
    return _finish(network, name, model_dir, directory, prov, None, notes)


def _check(network: EncoderNetwork, recipe: Recipe, path: Path, texts: list[Feeds] | None) -> ExportCheck:
    if not is_rounded(network, recipe.quantization):
        return check_onnx(path, network, recipe.quantization)
    exact = copy.deepcopy(network)
    for linear in linears(exact):
        linear.bits = 32
    exact_recipe = recipe.model_copy(update={"quantization": QuantizationRecipe()})
    with tempfile.TemporaryDirectory() as scratch:
        float_path = write_onnx(exact, exact_recipe, Path(scratch) / "float.onnx").path
        return check_onnx(path, network, recipe.quantization, float_path=float_path, texts=texts)


def _finish(
    network: EncoderNetwork,
    candidate: Candidate,
    model_dir: Path,
    directory: Path,
    provenance: Provenance,
    check: ExportCheck | None,
    notes: tuple[str, ...],
) -> Manifest:
    copy_companions(model_dir, directory)
    inputs = input_names(network)
    manifest = Manifest(
        kind="onnx",
        candidate=candidate,
        digest=candidate_digest(candidate),
        inputs=inputs,
        output=output_name(network),
        labels=tuple(network.labels),
        max_sequence_length=network.max_sequence_length,
        usage=onnx_usage(inputs),
        notes=notes,
        check=check,
        files=file_entries(directory),
        model_files=model_digests(model_dir),
        versions=package_versions(),
        provenance=provenance,
    )
    write_manifest(directory, manifest)
    return manifest


def input_names(network: EncoderNetwork) -> tuple[str, ...]:
    """Names of the model's inputs, in order."""
    return onnx_inputs(token_types=has_token_types(network.embeddings))


def output_name(network: EncoderNetwork) -> str:
    """Name of the model's only output."""
    return "logits" if isinstance(network.head, ClassificationHead) else "sentence_embedding"
