"""What a skilled hand does in an evening, to compare with: one shape, Taylor importance, three epochs of distillation.

    python -m benchmarks.hand_recipe --model DIR --data DIR --output DIR

Keeps 4 of 12 heads and a third of the feed-forward channels that such models have (384 of 1536) in every layer, by
Taylor importance and without re-solving anything, trains for three epochs on ``train.jsonl`` (AdamW 1e-4, batches of
32, 0.3 cross-entropy + 0.7 KL at temperature 2 from the dense model; the best checkpoint on held-back texts is kept),
and exports with the tools that everybody has: ``torch.onnx.export``, then ONNX Runtime's dynamic int8, per channel,
attention products included. Writes ``hand_fp32.onnx`` and ``hand_int8.onnx``, which ``benchmarks.deployed_speed
--hand DIR`` evaluates and times beside the service's models.
"""

import argparse
import time
from pathlib import Path

import torch

from benchmarks.recovery.bench import accuracy
from benchmarks.recovery.bench import encode
from compressors.anatomy import load_network
from compressors.apply import apply_recipe
from compressors.calibration import calibrate
from compressors.export.baselines import drop_weight_shapes
from compressors.export.baselines import export_module
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recovery.config import Augmentation
from compressors.recovery.config import LossWeights
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import model_inputs
from compressors.recovery.data import sequential_batches
from compressors.recovery.prepare import prepare
from compressors.recovery.recover import recover
from compressors.recovery.taylor import add_taylor_orders
from compressors.recovery.taylor import taylor_importance
from compressors.recovery.teacher import TeacherCache
from compressors.torch_module import to_module
from profilers.quality.encode import TextEncoder

TASK = "sequence-classification"
IMPORTANCE_TEXTS = 512
FP32, INT8 = "hand_fp32.onnx", "hand_int8.onnx"


def main() -> None:
    """Prune, train, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl and dev.jsonl")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    student = train(arguments)
    export(student, arguments.output)
    print(f"{time.monotonic() - started:.0f} s in all; files in {arguments.output}")


def train(arguments: argparse.Namespace) -> torch.nn.Module:
    """Return the trained student."""
    network = load_network(arguments.model, TASK)
    encoder = TextEncoder(arguments.model, 128)
    data, dev = (encode(encoder, arguments.data / f"{name}.jsonl") for name in ("train", "dev"))
    some = data.subset(range(0, len(data), max(1, len(data) // IMPORTANCE_TEXTS)))
    calibration = calibrate(network, map(model_inputs, sequential_batches(some, 32)))
    add_taylor_orders(calibration, taylor_importance(network, some))
    layer = LayerRecipe(
        attention=AttentionRecipe(heads=arguments.heads),
        feed_forward=FeedForwardRecipe(intermediate_size=arguments.width),
    )
    recipe = Recipe(layers=(layer,) * len(network.layers), criterion="taylor", compensation="none")
    student = to_module(apply_recipe(network, calibration, recipe))
    config = RecoveryConfig(
        seconds=None,
        epochs=arguments.epochs,
        learning_rate=1e-4,
        batch_size=32,
        temperature=2.0,
        losses=LossWeights(task=0.3, logits=0.7, hidden=0.0),
        augmentation=Augmentation(copies=0),
        train_embeddings=True,
        evaluations=3,
    )
    prepared = prepare(data, config)
    print(f"before training: dev {accuracy(student, dev):.2f}")
    result = recover(student, TeacherCache.build(network, prepared.examples), prepared, config)
    print(f"after {result.seconds:.0f} s of training: dev {accuracy(student, dev):.2f}")
    return student


def export(student: torch.nn.Module, output: Path) -> None:
    """Write the fp32 and the int8 file."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic

    export_module(student, output / FP32, "logits", inputs=("input_ids", "attention_mask"))
    cleaned = output / "cleaned.onnx"
    drop_weight_shapes(output / FP32, cleaned)
    quantize_dynamic(
        cleaned,
        output / INT8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"MatMulConstBOnly": False},
    )
    cleaned.unlink()


if __name__ == "__main__":
    main()
