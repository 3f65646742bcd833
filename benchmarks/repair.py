"""What a repair without labels gives back: divergence and accuracy before and after, shape by shape.

    python -m benchmarks.repair --model DIR --data DIR [--shapes 9/768 6/384] [--texts 512]

``--data`` is a folder with ``train.jsonl`` (its texts only) and ``test.jsonl``. A shape is heads/channels of every
layer; weights and activations of its layers have 8 bits in the repair's eyes. Divergence and accuracy are of the float
module, on all of test, which no part of the repair has seen.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.recovery.bench import accuracy
from benchmarks.recovery.bench import divergence
from benchmarks.recovery.bench import encode
from benchmarks.tables import print_table
from compressors.anatomy import load_network
from compressors.apply import apply_recipe
from compressors.calibration import calibrate
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.recovery.data import model_inputs
from compressors.recovery.data import sequential_batches
from compressors.repair.sequential import repair_sequentially
from compressors.torch_module import to_module
from profilers.isa import this_cpu
from profilers.quality.encode import TextEncoder

BATCH = 32


def main() -> None:
    """Repair every shape and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shapes", nargs="+", default=["9/768", "6/768", "6/384", "4/384", "3/192"])
    parser.add_argument("--texts", type=int, default=512, help="unlabelled texts, a quarter of them held out")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network = load_network(arguments.model, "sequence-classification")
    encoder = TextEncoder(arguments.model, 128)
    train, test = (encode(encoder, arguments.data / f"{name}.jsonl") for name in ("train", "test"))
    texts = train.subset(np.linspace(0, len(train) - 1, arguments.texts).astype(int).tolist())
    batches = [model_inputs(batch) for batch in sequential_batches(texts, BATCH)]
    calibration = calibrate(network, batches)
    dense = to_module(network)
    print(f"dense: test accuracy {accuracy(dense, test):.2f}")
    rows = []
    for shape in arguments.shapes:
        heads, width = map(int, shape.split("/"))
        layer = LayerRecipe(
            attention=AttentionRecipe(heads=heads, bits=8),
            feed_forward=FeedForwardRecipe(intermediate_size=width, bits=8),
        )
        quantization = QuantizationRecipe(reduce_range=this_cpu().saturating_int8)
        recipe = Recipe(layers=(layer,) * len(network.layers), quantization=quantization, repair="sequential")
        candidate = apply_recipe(network, calibration, recipe)
        started = time.perf_counter()
        repaired = repair_sequentially(network, candidate, calibration, recipe, batches).network
        seconds = time.perf_counter() - started
        row = {"heads/FFN": shape}
        for name, model in (("before", candidate), ("after", repaired)):
            row[f"KL {name}"] = f"{divergence(to_module(model, share=True), dense, test):.4f}"
            row[f"accuracy {name}"] = f"{accuracy(to_module(model), test):.2f}"
        rows.append(row | {"repair s": f"{seconds:.1f}"})
    print_table(rows)


if __name__ == "__main__":
    main()
