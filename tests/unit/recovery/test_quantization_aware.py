"""The int8 finish: its results lie on the exporter's grid, and it beats rounding."""

import dataclasses
from functools import partial
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from compressors.export.onnx.quantization import quantize_per_channel
from compressors.export.simulation import as_written
from compressors.export.simulation import round_activations
from compressors.export.simulation import round_blocks
from compressors.export.simulation import stored_weight
from compressors.network import EncoderNetwork
from compressors.network import Linear
from compressors.recipe import BLOCK
from compressors.recipe import GraphRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.recovery.config import LossWeights
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import TrainingData
from compressors.recovery.prepare import prepare
from compressors.recovery.quantization_aware import LearnedStep
from compressors.recovery.quantization_aware import fake_quantization
from compressors.recovery.quantization_aware import quantize_activation
from compressors.recovery.quantization_aware import quantized_layers
from compressors.recovery.quantization_aware import recover_quantized
from compressors.recovery.teacher import TeacherCache
from compressors.tensors import named_linears
from compressors.torch_module import to_module
from infra.errors import InvalidInputError
from tests.unit.recovery.conftest import shrink

CONFIG = RecoveryConfig(
    seconds=None,
    steps=40,
    learning_rate=2e-4,
    batch_size=16,
    evaluations=4,
    losses=LossWeights(task=0, logits=1, hidden=0),
)

PLAIN = Recipe.dense(2)
"""Per-channel weights, inputs that are rounded at run time."""


def in_few_bits(network: EncoderNetwork, bits: int = 8) -> EncoderNetwork:
    network = shrink(network, 3, 40)
    for layer in network.layers:
        for _, linear in named_linears(layer):
            linear.bits = bits
    return network


def on_grid(weight: Tensor) -> bool:
    integers, scale = quantize_per_channel(weight.numpy())
    return bool(np.allclose(integers * scale[:, None], weight.numpy(), rtol=1e-6, atol=0))


def test_the_finish_beats_plain_rounding_and_ends_on_the_grid(classifier: EncoderNetwork, texts: TrainingData) -> None:
    network = as_written(in_few_bits(classifier))
    student = to_module(network)
    names = set(student.state_dict())
    data = prepare(texts, CONFIG)
    teacher = TeacherCache.build(classifier, data.examples)
    result = recover_quantized(student, teacher, data, CONFIG, recipe=PLAIN)
    assert result.improved
    assert set(result.state_dict) == names
    matrices = [name for name in names if name.startswith("layers.") and result.state_dict[name].dim() == 2]
    assert len(matrices) == 18
    assert all(on_grid(result.state_dict[name]) for name in matrices)
    assert not on_grid(result.state_dict["head.dense.weight"])  # 32 bits: untouched by the rounding
    biases = [result.state_dict[name] for name in names if name.endswith("value.bias")]
    assert len(biases) == 3
    assert not any(bias.any() for bias in biases), "the file would compute it elsewhere"


def test_the_finish_of_a_weight_only_model_ends_on_the_grid_of_its_blocks(
    classifier: EncoderNetwork, texts: TrainingData
) -> None:
    quantization = QuantizationRecipe(scheme="weight_only")
    recipe = PLAIN.model_copy(update={"quantization": quantization})
    student, data = to_module(in_few_bits(classifier)), prepare(texts, CONFIG)
    teacher = TeacherCache.build(classifier, data.examples)
    start = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    result = recover_quantized(student, teacher, data, CONFIG, recipe=recipe)
    matrices = [name for name in start if name.startswith("layers.") and start[name].dim() == 2]
    for name in matrices:
        trained = result.state_dict[name]
        torch.testing.assert_close(stored_weight(trained, 8, quantization), trained, rtol=1e-6, atol=0)
        assert not torch.equal(trained, stored_weight(start[name], 8, quantization)), "it was trained, not only rounded"
        if trained.shape[1] > BLOCK:
            assert not on_grid(trained), "one grid for a whole row is another one"
    assert any(start[name].shape[1] > BLOCK for name in matrices)


SCHEMES = {
    "int8": (8, QuantizationRecipe()),
    "7 bits": (8, QuantizationRecipe(reduce_range=True)),
    "int8 weights": (8, QuantizationRecipe(scheme="weight_only")),
    "int4 weights": (4, QuantizationRecipe()),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_untrained_fake_quantization_is_plain_rounding(classifier: EncoderNetwork, scheme: str) -> None:
    """Also of the 40 inputs of a matrix whose blocks have 32: the last block has less."""
    bits, quantization = SCHEMES[scheme]
    student = to_module(in_few_bits(classifier, bits))
    layers = {"query": student.layers[0].attention.query, "down": student.layers[0].feed_forward.down}
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    with fake_quantization(student, PLAIN.model_copy(update={"quantization": quantization})):
        pass
    for name, layer in layers.items():
        torch.testing.assert_close(layer.weight.detach(), stored_weight(before[name], bits, quantization))


@pytest.mark.parametrize(("operators", "rounds"), [("contrib", True), ("standard", False)])
def test_weight_only_layers_read_what_their_file_reads(
    classifier: EncoderNetwork, operators: Literal["contrib", "standard"], rounds: bool
) -> None:
    quantization = QuantizationRecipe(scheme="weight_only")
    recipe = PLAIN.model_copy(update={"quantization": quantization, "graph": GraphRecipe(operators=operators)})
    student = to_module(in_few_bits(classifier))
    layer = student.layers[0].feed_forward.down
    values, weight = torch.randn(2, 5, 40) * 7, stored_weight(layer.weight.detach(), 8, quantization)
    read = round_blocks(values) if rounds else values
    with torch.no_grad(), fake_quantization(student, recipe):
        torch.testing.assert_close(layer(values), functional.linear(read, weight, layer.bias))


def test_factorised_layers_are_rounded_in_both_factors(classifier: EncoderNetwork) -> None:
    network = in_few_bits(classifier)
    up = network.layers[0].feed_forward.up
    left, values, right = torch.linalg.svd(up.matrix(), full_matrices=False)
    factored = Linear(None, up.bias, left[:, :8] * values[:8], right[:8].contiguous(), bits=8)
    network.layers[0].feed_forward = dataclasses.replace(network.layers[0].feed_forward, up=factored)
    student = to_module(network)
    assert len(quantized_layers(student)) == 18
    with fake_quantization(student, PLAIN):
        pass
    assert on_grid(student.layers[0].feed_forward.up.left.detach())
    assert on_grid(student.layers[0].feed_forward.up.right.detach())


def test_the_gradients_of_a_learned_step_follow_the_paper() -> None:
    weight = torch.tensor([[0.30, -1.27, 0.704], [0.0, 0.5, -0.25]], requires_grad=True)
    layer = LearnedStep(2, 3)
    with torch.no_grad():
        layer.ratio.copy_(torch.tensor([0.5, 1.0]))  # steps 0.005 and 0.5 / 127: the second entry is clipped
    outward = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    (layer(weight) * outward).sum().backward()
    assert torch.equal(weight.grad, torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
    step, largest = 0.005, 1.27
    inner = round(0.30 / step) - 0.30 / step
    expected = (1.0 * inner + 2.0 * -127 + 3.0 * 127) / (3 * 127) ** 0.5 * largest / 127
    assert layer.ratio.grad[0] == pytest.approx(expected, rel=1e-3)


def test_activations_are_rounded_text_by_text_and_keep_zero() -> None:
    values = torch.randn(3, 5, 8) * torch.tensor([0.1, 1.0, 50.0])[:, None, None]
    values[:, 0, 0] = 0.0
    rounded = quantize_activation(values, partial(round_activations, grid="text"))
    for row, result in zip(values, rounded, strict=True):
        step = float(row.max() - row.min()) / 255
        assert (row - result).abs().max() <= step * 0.5001 + 1e-6
        assert len(result.unique()) <= 256
        assert result[0, 0] == 0.0


def test_a_model_without_int8_layers_is_refused(classifier: EncoderNetwork, texts: TrainingData) -> None:
    data = prepare(texts, CONFIG)
    teacher = TeacherCache.build(classifier, data.examples)
    with pytest.raises(InvalidInputError, match="8 bits"):
        recover_quantized(to_module(classifier), teacher, data, CONFIG, recipe=PLAIN)
