"""A tiny dense model, a damaged copy of it, and texts: everything a recovery needs."""

import copy
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from compressors.anatomy import load_network
from compressors.network import EncoderNetwork
from compressors.recovery.data import TrainingData
from compressors.torch_module import to_module
from paretune.artifact.encoder import CompressedEncoder
from tests.helpers.tiny_models import make_tiny_model

CLS, SEP, FIRST_WORD = 2, 3, 4


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> EncoderNetwork:
    folder: Path = tmp_path_factory.mktemp("classifier")
    return load_network(make_tiny_model(folder, layers=3), "sequence-classification")


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> EncoderNetwork:
    folder: Path = tmp_path_factory.mktemp("embedder")
    return load_network(make_tiny_model(folder, task="embedding"), "embedding")


def make_texts(rows: int, vocabulary: int, seed: int = 0, labelled: bool = True) -> TrainingData:
    generator = random.Random(seed)
    ids = [
        [CLS, *(generator.randrange(FIRST_WORD, vocabulary) for _ in range(generator.randrange(2, 14))), SEP]
        for _ in range(rows)
    ]
    return TrainingData(ids, [generator.randrange(2) for _ in range(rows)] if labelled else None)


@pytest.fixture
def texts(classifier: EncoderNetwork) -> TrainingData:
    return make_texts(160, classifier.embeddings.word.shape[0])


def shrink(network: EncoderNetwork, heads: int, width: int) -> EncoderNetwork:
    """Keep the first heads and channels of every layer."""
    result = copy.deepcopy(network)
    for layer in result.layers:
        attention, branch = layer.attention, layer.feed_forward
        assert attention is not None
        assert branch is not None
        rows = heads * attention.head_size
        for linear in (attention.query, attention.key, attention.value):
            linear.weight, linear.bias = linear.matrix()[:rows].clone(), linear.bias[:rows].clone()
        attention.output.weight, attention.heads = attention.output.matrix()[:, :rows].clone(), heads
        branch.up.weight, branch.up.bias = branch.up.matrix()[:width].clone(), branch.up.bias[:width].clone()
        branch.down.weight = branch.down.matrix()[:, :width].clone()
    return result


@pytest.fixture
def student_of() -> Callable[[EncoderNetwork], CompressedEncoder]:
    return lambda network: to_module(shrink(network, 3, 40))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
