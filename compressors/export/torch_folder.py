"""The torch download: weights with their structure, an exported program, tokenizer and manifest."""

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from compressors.export.checks import Feeds
from compressors.export.checks import compare
from compressors.export.checks import example_feeds
from compressors.export.checks import module_runner
from compressors.export.checks import require
from compressors.export.folder import finish_folder
from compressors.export.folder import input_names
from compressors.export.manifest import ExportCheck
from compressors.export.manifest import Manifest
from compressors.export.manifest import Provenance
from compressors.network import EncoderNetwork
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from compressors.torch_module import to_module
from compressors.usage import PROGRAM_FILE
from compressors.usage import torch_usage
from paretune.artifact.loader import load
from paretune.artifact.loader import save


def export_torch_folder(
    network: EncoderNetwork, recipe: Recipe, model_dir: Path, directory: Path, provenance: Provenance
) -> Manifest:
    """Write the complete torch folder of a candidate; weights and arithmetic are float32.

    Args:
        network: The candidate, after the recipe's methods were applied.
        recipe: Its recipe.
        model_dir: Hugging Face folder of the dense model, for tokenizer and configuration.
        directory: Where to write; made if needed.
        provenance: What the caller knows about task, data, latency and quality.

    Returns:
        The manifest, as written.

    Raises:
        ExportMismatchError: A written form, read back, does not compute what the module computes.
    """
    module = to_module(network, share=True)
    save(module, directory)
    _export_program(module, network, directory / PROGRAM_FILE)
    check = _check(module, network, directory)
    return finish_folder(
        "torch",
        network,
        RecipeCandidate(recipe=recipe),
        model_dir,
        directory,
        provenance,
        usage=torch_usage(input_names(network), provenance.runtime),
        notes=(
            "Weights are float32 here; structure.json records the bit-width that each layer is deployed with in ONNX.",
            "model.pt2 is the same function for torch.export.load, which needs no Paretune; it belongs to this torch"
            " version.",
        ),
        check=check,
    )


def _export_program(module: torch.nn.Module, network: EncoderNetwork, path: Path) -> None:
    """Trace the module with batch and sequence dynamic and write it."""
    ids = torch.arange(2 * 8).reshape(2, 8) % network.embeddings.word.shape[0]
    example = (ids, torch.ones_like(ids), torch.zeros_like(ids))[: len(input_names(network))]
    batch = torch.export.Dim("batch", min=1)
    sequence = torch.export.Dim("sequence", min=1, max=network.max_sequence_length)
    shapes = tuple({0: batch, 1: sequence} for _ in example)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, example, dynamic_shapes=shapes)
        torch.export.save(program, path)


def _check(module: torch.nn.Module, network: EncoderNetwork, directory: Path) -> ExportCheck:
    feeds, reference = example_feeds(network), module_runner(module)
    names = input_names(network)
    program = torch.export.load(directory / PROGRAM_FILE).module()

    def run_program(feed: Feeds) -> NDArray[np.float32]:
        with torch.inference_mode():
            output: NDArray[np.float32] = program(*(torch.from_numpy(feed[name]) for name in names)).numpy()
        return output

    require(compare(module_runner(load(directory)), reference, feeds), "saved torch model")
    return require(compare(run_program, reference, feeds), "exported torch program")
