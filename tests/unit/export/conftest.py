"""Tiny models of every family and task, read once."""

import copy
import json
from pathlib import Path

import pytest

from compressors.anatomy import load_network
from compressors.export.checks import linears
from compressors.network import EncoderNetwork
from tests.helpers.tiny_models import make_tiny_model

CASES = [
    ("bert", "sequence-classification"),
    ("roberta", "sequence-classification"),
    ("distilbert", "sequence-classification"),
    ("bert", "embedding"),
    ("xlm-roberta", "embedding"),
]
"""As embedding models, BERT takes the mean of the tokens, as MiniLM does, and XLM-RoBERTa the first, as BGE does."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Model folders by (family, task), three layers each."""
    root = tmp_path_factory.mktemp("tiny")
    made = {case: make_tiny_model(root / "-".join(case), model_type=case[0], task=case[1], layers=3) for case in CASES}
    first_token = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    pooling = made["xlm-roberta", "embedding"] / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(first_token), encoding="utf-8")
    return made


@pytest.fixture(scope="session")
def networks(folders: dict[tuple[str, str], Path]) -> dict[tuple[str, str], EncoderNetwork]:
    """The networks of :func:`folders`; tests must not change them."""
    return {case: load_network(folder, case[1]) for case, folder in folders.items()}


def in_bits(network: EncoderNetwork, bits: int) -> EncoderNetwork:
    """Return a copy of the network with every linear layer in ``bits`` bits."""
    result = copy.deepcopy(network)
    for linear in linears(result):
        linear.bits = bits
    return result
