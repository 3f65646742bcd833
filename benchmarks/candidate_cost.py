"""Seconds from a recipe to an artifact that loads, against a re-export of the same candidate through torch.

    python -m benchmarks.candidate_cost --model DIR --data FILE

The calibration is taken beforehand; the first candidate also pays for what later ones share (removal orders).
"""

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.tables import print_table
from compressors.anatomy import describe
from compressors.anatomy import load_network
from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.export.baselines import export_module
from compressors.export.checks import onnx_runner
from compressors.export.folder import input_names
from compressors.export.folder import output_name
from compressors.export.onnx import write_onnx
from compressors.network import EncoderNetwork
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.torch_module import to_module
from profilers.quality.encode import TextEncoder
from profilers.quality.examples import read_examples
from profilers.registry import get_profiler
from search.canonical import canonicalise
from search.formats import NumberFormat
from search.formats import offered_formats
from search.prepared import GraphDefaults
from workers.operations.formats import device_defaults

STEPS = ("apply recipe", "write ONNX", "open in ONNX Runtime", "together", "re-export through torch")


def random_recipe(
    network: EncoderNetwork, generator: random.Random, defaults: GraphDefaults, formats: Sequence[NumberFormat]
) -> Recipe:
    """Draw heads and widths for every layer, and fp32 or an int8 format; a quarter of them has one layer less."""
    anatomy = describe(network)
    bits = generator.choice((32, 8))
    dropped = generator.randrange(4 * anatomy.layers)
    layers = tuple(
        LayerRecipe(
            attention=AttentionRecipe(heads=generator.randint(0, heads), bits=bits),
            feed_forward=FeedForwardRecipe(intermediate_size=64 * generator.randint(0, width // 64), bits=bits),
            removed=index == dropped,
        )
        for index, (heads, width) in enumerate(zip(anatomy.heads, anatomy.intermediate_size, strict=True))
    )
    recipe = canonicalise(Recipe(layers=layers, quantization=generator.choice(formats).quantization), anatomy)
    return recipe.model_copy(update={"graph": defaults.graph_for(recipe)})


def one_candidate(
    network: EncoderNetwork, calibration: Calibration, recipe: Recipe, feeds: list[dict[str, np.ndarray]], folder: Path
) -> tuple[EncoderNetwork, list[float]]:
    """Build a candidate; returns it with the seconds of each of the first four steps."""
    path = folder / "candidate.onnx"
    started = time.perf_counter()
    candidate = apply_recipe(network, calibration, recipe)
    applied = time.perf_counter()
    write_onnx(candidate, recipe, path, feeds=feeds)
    written = time.perf_counter()
    run = onnx_runner(path)
    opened = time.perf_counter()
    run(feeds[0])
    return candidate, [applied - started, written - applied, opened - written, opened - started]


def main() -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSONL with text")
    parser.add_argument("--task", default="sequence-classification", choices=["sequence-classification", "embedding"])
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--reexports", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    network = load_network(arguments.model, arguments.task)
    examples = read_examples(arguments.data)
    texts = TextEncoder(arguments.model, 128).encode(examples.select(np.arange(min(256, len(examples)))))
    feeds = [texts.batch([index]) for index in range(64)]
    batches = [texts.batch(range(start, start + 32)) for start in range(0, len(texts), 32)]
    needed = input_names(network)
    calibration = calibrate(network, [{name: torch.from_numpy(batch[name]) for name in needed} for batch in batches])
    generator = random.Random(arguments.seed)
    capabilities = get_profiler("onnxruntime").describe()
    defaults = device_defaults("onnxruntime", capabilities)
    formats = offered_formats(capabilities, defaults, ("int8_dynamic", "int8_static"))
    seconds: dict[str, list[float]] = {step: [] for step in STEPS}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for number in range(arguments.candidates):
            recipe = random_recipe(network, generator, defaults, formats)
            candidate, spent = one_candidate(network, calibration, recipe, feeds, folder)
            for step, value in zip(STEPS, spent, strict=False):
                seconds[step].append(value)
            if number < arguments.reexports:
                module, path = to_module(candidate), folder / "traced.onnx"
                started = time.perf_counter()
                export_module(module, path, output_name(network), inputs=needed)
                onnx_runner(path)
                seconds[STEPS[4]].append(time.perf_counter() - started)
    print(f"\n{arguments.candidates} random candidates of {arguments.model.name}, seconds")
    print_table([line(step, seconds[step]) for step in STEPS if seconds[step]])


def line(step: str, values: list[float]) -> dict[str, str]:
    """One line of the table."""
    return {
        "step": step,
        "first": f"{values[0]:.3f}",
        "median": f"{np.median(values):.3f}",
        "p90": f"{np.percentile(values, 90):.3f}",
        "worst": f"{max(values):.3f}",
        "candidates": str(len(values)),
    }


if __name__ == "__main__":
    main()
