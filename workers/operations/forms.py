"""Writes networks in the form that the job's device opens."""

from pathlib import Path

from compressors.export.onnx import write_onnx
from compressors.network import EncoderNetwork
from compressors.recipe import Recipe
from compressors.torch_module import to_module
from paretune.artifact.loader import save
from profilers.types import Artifact
from profilers.types import Form
from workers.operations.data import Feeds


def write_network(
    network: EncoderNetwork,
    recipe: Recipe,
    path: Path,
    form: Form,
    *,
    static: tuple[int, int] | None = None,
    feeds: list[Feeds] | None = None,
) -> Artifact:
    """Write a network as one ONNX file, or as a torch folder with structure and weights.

    Args:
        network: The candidate, after the recipe's methods were applied.
        recipe: Its recipe; what it says about the graph has no meaning in torch.
        path: Where to write, without a suffix.
        form: What the device opens.
        static: Batch and sequence length to write into an ONNX graph.
        feeds: Inputs for the ranges of activations; needed by the static scheme.
    """
    if form == "torch":
        save(to_module(network, share=True), path)
        return Artifact(path=path, format="torch", precision=recipe.precision)
    file = path.with_name(f"{path.name}.onnx")
    write_onnx(network, recipe, file, static=static, feeds=feeds)
    return Artifact(path=file, precision=recipe.precision)
