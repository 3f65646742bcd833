"""What all downloaded folders have in common: companions and manifest."""

from pathlib import Path

from compressors.export.companions import copy_companions
from compressors.export.companions import model_digests
from compressors.export.manifest import ExportCheck
from compressors.export.manifest import Manifest
from compressors.export.manifest import Provenance
from compressors.export.manifest import file_entries
from compressors.export.manifest import package_versions
from compressors.export.manifest import write_manifest
from compressors.export.onnx.embeddings import has_token_types
from compressors.network import ClassificationHead
from compressors.network import EncoderNetwork
from compressors.recipe import Candidate
from compressors.recipe import candidate_digest
from compressors.usage import Kind
from compressors.usage import measured_notes
from compressors.usage import onnx_inputs


def finish_folder(
    kind: Kind,
    network: EncoderNetwork,
    candidate: Candidate,
    model_dir: Path,
    directory: Path,
    provenance: Provenance,
    *,
    usage: tuple[str, ...],
    notes: tuple[str, ...] = (),
    check: ExportCheck | None = None,
    static_check: ExportCheck | None = None,
) -> Manifest:
    """Put tokenizer, configuration and manifest beside the model files that are in ``directory`` already.

    Args:
        kind: What the model files are.
        network: The candidate; the dense network for a baseline.
        candidate: Its description.
        model_dir: Hugging Face folder of the dense model.
        directory: The folder.
        provenance: What the caller knows; its ``runtime`` adds notes to its own.
        usage: Three lines of Python.
        notes: What else a user should know.
        check: How far the file is from the torch module.
        static_check: The same of the file with a fixed shape.

    Returns:
        The manifest, as written.
    """
    copy_companions(model_dir, directory)
    manifest = Manifest(
        kind=kind,
        candidate=candidate,
        digest=candidate_digest(candidate),
        inputs=input_names(network),
        output=output_name(network),
        labels=tuple(network.labels),
        max_sequence_length=network.max_sequence_length,
        usage=usage,
        notes=(*provenance.notes, *notes, *measured_notes(kind, provenance.runtime)),
        check=check,
        static_check=static_check,
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
