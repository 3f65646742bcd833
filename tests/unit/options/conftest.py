"""A tiny classifier with its calibration, its scoring text, and its option database."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from compressors.anatomy import load_network
from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.network import EncoderNetwork
from compressors.options.database import OptionSet
from compressors.options.database import build_options
from compressors.options.scoring import ScoringSet
from compressors.recipe import Recipe
from profilers.quality.encode import TextEncoder
from profilers.quality.examples import read_examples
from tests.helpers.tiny_models import make_dataset
from tests.helpers.tiny_models import make_tiny_model

LAYERS = 2


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), layers=LAYERS, intermediate_size=128)


@pytest.fixture(scope="session")
def network(model_dir: Path) -> EncoderNetwork:
    return load_network(model_dir, "sequence-classification")


@pytest.fixture(scope="session")
def examples(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    texts = read_examples(make_dataset(tmp_path_factory.mktemp("data") / "texts.jsonl", rows=96))
    encoded = TextEncoder(model_dir, 64).encode(texts)
    return [{k: torch.from_numpy(v) for k, v in encoded.batch([i]).items()} for i in range(len(encoded))]


@pytest.fixture(scope="session")
def calibration(network: EncoderNetwork, examples: list[dict[str, Tensor]]) -> Calibration:
    return calibrate(network, examples[:64])


@pytest.fixture(scope="session")
def scoring(examples: list[dict[str, Tensor]]) -> ScoringSet:
    return ScoringSet.collect(examples[64:], (0.25, 0.5, 1.0))


@pytest.fixture(scope="session")
def options(network: EncoderNetwork, calibration: Calibration, scoring: ScoringSet) -> OptionSet:
    return build_options(network, calibration, scoring, Recipe.dense(LAYERS), (32, 8), low_rank=True)
