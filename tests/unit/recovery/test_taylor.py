"""Taylor importance against explicit gates, and the orders that recipes use."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from compressors.apply import apply_recipe
from compressors.calibration import calibrate
from compressors.network import EncoderNetwork
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recovery.data import UNLABELLED
from compressors.recovery.data import TrainingData
from compressors.recovery.data import sequential_batches
from compressors.recovery.taylor import add_taylor_orders
from compressors.recovery.taylor import taylor_importance
from compressors.torch_module import to_module


def gate_sensitivity(network: EncoderNetwork, texts: TrainingData, layer: int) -> tuple[Tensor, Tensor]:
    """Mean |d loss / d gate| with gates multiplied onto heads and channels, one text at a time."""
    module = to_module(network)
    attention, branch = network.layers[layer].attention, network.layers[layer].feed_forward
    assert attention is not None
    assert branch is not None
    heads, channels = torch.ones(attention.heads, requires_grad=True), torch.ones(branch.intermediate_size)
    channels.requires_grad_(True)
    target = module.layers[layer]
    size = attention.head_size
    target.attention.output.register_forward_pre_hook(lambda _, x: (x[0] * heads.repeat_interleave(size),))
    target.feed_forward.down.register_forward_pre_hook(lambda _, x: (x[0] * channels,))
    sums = [torch.zeros_like(heads), torch.zeros_like(channels)]
    for ids, label in zip(texts.input_ids, texts.labels or (), strict=True):
        tokens = torch.tensor([list(ids)])
        loss = functional.cross_entropy(module(tokens, torch.ones_like(tokens)), torch.tensor([label]))
        for total, gradient in zip(sums, torch.autograd.grad(loss, [heads, channels]), strict=True):
            total += gradient.abs()
    return sums[0] / len(texts), sums[1] / len(texts)


def test_importance_is_the_mean_absolute_gradient_of_a_gate(classifier: EncoderNetwork, texts: TrainingData) -> None:
    few = texts.subset(range(20))
    importance = taylor_importance(classifier, few, batch_size=7)
    heads, channels = gate_sensitivity(classifier, few, layer=1)
    torch.testing.assert_close(importance.heads[1], heads.double(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(importance.channels[1], channels.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", ["labels", "drawn", "embedding"])
def test_the_batch_size_does_not_matter(
    classifier: EncoderNetwork, embedder: EncoderNetwork, texts: TrainingData, task: str
) -> None:
    network = embedder if task == "embedding" else classifier
    labels = {"labels": texts.labels, "drawn": [UNLABELLED] * len(texts), "embedding": None}[task]
    data = TrainingData(texts.input_ids, labels)
    first, second = (taylor_importance(network, data, batch_size=size) for size in (5, 160))
    for index in first.heads:
        torch.testing.assert_close(first.heads[index], second.heads[index], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(first.channels[index], second.channels[index], rtol=1e-4, atol=1e-7)


def test_recipes_keep_the_most_important_units(classifier: EncoderNetwork, texts: TrainingData) -> None:
    batches = [{"input_ids": b.input_ids, "attention_mask": b.attention_mask} for b in sequential_batches(texts, 32)]
    calibration = calibrate(classifier, batches)
    importance = taylor_importance(classifier, texts)
    add_taylor_orders(calibration, importance)
    layer = LayerRecipe(attention=AttentionRecipe(heads=2), feed_forward=FeedForwardRecipe(intermediate_size=10))
    recipe = Recipe(layers=(layer,) * 3, criterion="taylor", compensation="none")
    smaller = apply_recipe(classifier, calibration, recipe)
    for index, layer in enumerate(smaller.layers):
        channels = importance.channels[index].topk(10).indices.sort().values
        expected = classifier.layers[index].feed_forward.up.matrix()[channels]
        torch.testing.assert_close(layer.feed_forward.up.matrix(), expected)
        heads = importance.heads[index].topk(2).indices.sort().values
        rows = torch.cat([torch.arange(head * 8, head * 8 + 8) for head in heads.tolist()])
        torch.testing.assert_close(
            layer.attention.value.matrix(), classifier.layers[index].attention.value.matrix()[rows]
        )
