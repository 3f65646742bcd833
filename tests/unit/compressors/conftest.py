"""Tiny models of every family, made once a session, and their calibration."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from compressors.anatomy import load_network
from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.network import EncoderNetwork
from tests.helpers.tiny_models import make_tiny_model

FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert")
TASKS = ("sequence-classification", "embedding")

TEXTS = (
    "the film is good and warm",
    "a bad story",
    "the actor was very funny and the plot was clever",
    "dull",
    "it is a cold and silly scene with boring music",
    "great",
)


def make_batches(model_dir: Path, texts: tuple[str, ...] = TEXTS, size: int = 3) -> list[dict[str, Tensor]]:
    """Tokenise into padded batches that hold exactly the inputs of the model."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    groups = [list(texts[start : start + size]) for start in range(0, len(texts), size)]
    return [dict(tokenizer(group, padding=True, return_tensors="pt")) for group in groups]


@pytest.fixture(scope="session")
def model_dirs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    made: dict[tuple[str, str], Path] = {}

    def get(model_type: str, task: str = "sequence-classification") -> Path:
        if (model_type, task) not in made:
            directory = tmp_path_factory.mktemp("models") / f"{model_type}-{task}"
            made[model_type, task] = make_tiny_model(directory, model_type, task, labels=3)
        return made[model_type, task]

    return get


@pytest.fixture(scope="session")
def bert_dir(model_dirs: Callable[..., Path]) -> Path:
    return model_dirs("bert")


@pytest.fixture(scope="session")
def bert(bert_dir: Path) -> EncoderNetwork:
    return load_network(bert_dir, "sequence-classification")


@pytest.fixture(scope="session")
def batches(bert_dir: Path) -> list[dict[str, Tensor]]:
    return make_batches(bert_dir)


@pytest.fixture(scope="session")
def calibration(bert: EncoderNetwork) -> Calibration:
    """Of random token sequences, enough of them for Gram matrices of full rank."""
    generator = torch.Generator().manual_seed(1)
    vocabulary = bert.embeddings.word.shape[0]
    return calibrate(
        bert,
        [
            {
                "input_ids": torch.randint(4, vocabulary, (16, 12), generator=generator),
                "attention_mask": torch.ones(16, 12, dtype=torch.int64),
            }
            for _ in range(4)
        ],
    )
