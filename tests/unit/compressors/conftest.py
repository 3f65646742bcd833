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
from compressors.torch_module import to_module
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


READERS = {
    "attention_in": "layers.{}.attention.key",
    "attention_out": "layers.{}.attention.output",
    "feed_forward_in": "layers.{}.feed_forward.up",
    "feed_forward_mid": "layers.{}.feed_forward.down",
}


@torch.no_grad()
def activations(network: EncoderNetwork, batches: list[dict[str, Tensor]], layer: int, site: str) -> Tensor:
    """All attended inputs of one linear layer, float64 ``[tokens, width]``, from an ordinary forward pass."""
    module, found = to_module(network), []
    hook = module.get_submodule(READERS[site].format(layer)).register_forward_pre_hook(
        lambda _, inputs: found.append(inputs[0])
    )
    for batch in batches:
        module(**batch)
    hook.remove()
    return torch.cat(
        [values[batch["attention_mask"].bool()] for values, batch in zip(found, batches, strict=True)]
    ).double()


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
