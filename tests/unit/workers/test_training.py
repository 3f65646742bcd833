"""What a job's trainings are made of, as far as it follows from the budget and the model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from compressors.description import Anatomy
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recovery.config import Augmentation
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import UNLABELLED
from compressors.recovery.data import TrainingData
from compressors.recovery.data import collate
from compressors.recovery.prepare import FEWEST_HELD
from compressors.torch_module import to_module
from infra.errors import InvalidDatasetError
from search.requests import Recover
from tests.helpers.tiny_models import make_dataset
from tests.unit.workers.test_bench import context
from tests.unit.workers.test_bench import make_bench
from workers.operations.bench import Bench
from workers.operations.inputs import DataFile
from workers.operations.recover import evaluations
from workers.operations.recover import recover
from workers.operations.training import FEW_TEXTS
from workers.operations.training import MOST_COPIES
from workers.operations.training import MOST_STATE_BYTES
from workers.operations.training import affordable_copies
from workers.operations.training import affordable_tokens
from workers.operations.training import default_learning_rate
from workers.operations.training import default_losses
from workers.operations.training import held_texts
from workers.operations.training import training_data

ANATOMY = Anatomy(
    model_type="bert",
    task="embedding",
    layers=6,
    hidden_size=384,
    heads=(12,) * 6,
    head_size=32,
    intermediate_size=(1536,) * 6,
    vocabulary_size=30_000,
    max_sequence_length=512,
    labels=(),
    parameters=22_000_000,
    has_token_types=True,
)


def test_token_states_are_compared_where_there_is_room_for_them() -> None:
    texts = TrainingData([[1] * 64] * 1000)
    assert default_losses(ANATOMY, texts, Augmentation()).hidden > 0
    wide = ANATOMY.model_copy(update={"hidden_size": MOST_STATE_BYTES // (64 * 1000 * 6)})
    assert default_losses(wide, texts, Augmentation()).hidden == 0
    assert default_losses(ANATOMY, texts, Augmentation(copies=20)).hidden == 0


def test_embedding_models_are_trained_in_smaller_steps() -> None:
    classifier = ANATOMY.model_copy(update={"task": "sequence-classification"})
    whole = RecoveryConfig().learning_rate
    assert default_learning_rate(ANATOMY, 600) < default_learning_rate(classifier, 600) == whole
    assert default_learning_rate(classifier, 30) == default_learning_rate(classifier, 600, continued=True) == whole / 2


def test_the_dense_model_reads_more_in_a_longer_time_and_less_where_it_is_large() -> None:
    assert affordable_tokens(ANATOMY, 1200) > 1.9 * affordable_tokens(ANATOMY, 600)
    larger = ANATOMY.model_copy(update={"parameters": 10 * ANATOMY.parameters})
    assert affordable_tokens(larger, 1200) < 0.2 * affordable_tokens(ANATOMY, 1200)


def test_few_texts_are_varied_as_far_as_time_and_room_go() -> None:
    texts = [25] * 7000
    assert affordable_copies(ANATOMY, texts, 7000 * 25) == 0
    assert affordable_copies(ANATOMY, texts, 3 * 7000 * 25) == 2
    copies = affordable_copies(ANATOMY, texts, 100 * 7000 * 25)
    assert 0 < copies < MOST_COPIES  # their states have no more room
    assert default_losses(ANATOMY, TrainingData([[1] * 25] * 7000), Augmentation(copies=copies)).hidden > 0
    assert default_losses(ANATOMY, TrainingData([[1] * 25] * 7000), Augmentation(copies=copies + 1)).hidden == 0
    assert affordable_copies(ANATOMY, [25] * 100, 100 * 7000 * 25) == MOST_COPIES
    assert affordable_copies(ANATOMY, [5] * FEW_TEXTS, 100 * 7000 * 25) == 0


def test_a_short_training_is_evaluated_less_often():
    assert [evaluations(seconds) for seconds in (5.0, 32.0, 60.0, 600.0)] == [3, 4, 7, 12]


@pytest.mark.parametrize("role", ["train", "calibration"])
def test_training_texts_may_lack_labels(tmp_path: Path, role: str) -> None:
    work = make_bench(tmp_path)
    path = tmp_path / "more.jsonl"
    rows = [{"text": f"a film of {number} good hours"} for number in range(100)]
    for row, label in zip(rows, (1, "LABEL_0", -1, None, "", "-1", float("nan")), strict=False):
        row["label"] = label
    path.write_text("\n".join(json.dumps(row) for row in rows))
    inputs = work.inputs.model_copy(update={role: DataFile(path=path, format="jsonl")})
    data, _ = training_data(inputs, work.anatomy, 600, use_labels=True)
    assert list(data.labels) == [1, 0] + [UNLABELLED] * 98
    without, _ = training_data(inputs, work.anatomy, 600, use_labels=False)
    assert without.labels is None
    assert without.input_ids == data.input_ids


def test_labels_that_are_not_used_are_not_read(tmp_path: Path) -> None:
    work = make_bench(tmp_path)
    path = tmp_path / "more.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"{number} good hours", "label": "?"}) for number in range(100)))
    inputs = work.inputs.model_copy(update={"calibration": DataFile(path=path, format="jsonl")})
    with pytest.raises(InvalidDatasetError, match="label '\\?'"):
        training_data(inputs, work.anatomy, 600, use_labels=True)
    assert len(training_data(inputs, work.anatomy, 600, use_labels=False)[0]) == 100


def test_texts_of_the_search_split_choose_the_checkpoint_as_many_as_are_quickly_evaluated(tmp_path: Path) -> None:
    work = make_bench(tmp_path)
    search = work.data.texts["search"]
    texts = [ids.tolist() for ids in search.input_ids]
    held = held_texts(search, work.anatomy, 600, seed=0)
    assert held.input_ids == texts
    assert held.labels is None
    large = work.anatomy.model_copy(update={"parameters": 10**11})
    few = held_texts(search, large, 600, seed=0)
    assert len(few) == FEWEST_HELD < len(texts)
    assert few == held_texts(search, large, 600, seed=0) != held_texts(search, large, 600, seed=1)
    places = iter(texts)
    assert all(row in places for row in few.input_ids), "in the order of the split"
    many = search.select(np.arange(len(texts)).repeat(10))
    assert len(held_texts(many, work.anatomy, 600, seed=0)) == RecoveryConfig().held_back_limit


def test_room_for_the_states_of_held_texts_is_left() -> None:
    texts = [25] * 7000
    copies = affordable_copies(ANATOMY, texts, 100 * 7000 * 25)
    assert affordable_copies(ANATOMY, texts, 100 * 7000 * 25, 7000 * 25) == copies - 1
    data = TrainingData([[1] * 25] * 7000)
    assert default_losses(ANATOMY, data, Augmentation(copies=copies - 1), 7000 * 25).hidden > 0
    assert default_losses(ANATOMY, data, Augmentation(copies=copies), 7000 * 25).hidden == 0


def test_a_training_is_judged_on_the_search_split_and_sees_no_text_of_the_evaluation_data(tmp_path: Path) -> None:
    work = make_bench(tmp_path)
    path = make_dataset(tmp_path / "more.jsonl", rows=150, seed=1)
    path.write_text(path.read_text() + work.inputs.dataset.path.read_text())
    work = Bench(work.inputs.model_copy(update={"train": DataFile(path=path, format="jsonl")}))
    layer = LayerRecipe(attention=AttentionRecipe(heads=2), feed_forward=FeedForwardRecipe(intermediate_size=32))
    arguments = {
        "inputs": work.inputs.model_dump(mode="json"),
        "recipe": Recipe(layers=(layer,) * work.anatomy.layers).model_dump(mode="json"),
        "parent": None,
        "finish": False,
        "name": "first",
        "seconds": 1.0,
        "request": Recover(seconds=20).model_dump(mode="json"),
    }
    runner = context(work)
    result = recover(arguments, runner)
    _, data = runner.state["training"]
    rows = data.examples.input_ids
    assert [rows[row] for row in data.held] == [ids.tolist() for ids in work.data.texts["search"].input_ids]
    evaluation = {tuple(ids.tolist()) for name in ("search", "holdout") for ids in work.data.texts[name].input_ids}
    assert not evaluation & {tuple(rows[row]) for row in data.train}
    assert result["texts"] == sum(row < result["texts"] for row in data.train) > 100

    batch = collate(data.examples, data.held)
    student = to_module(work.candidate_network(Recipe.model_validate(arguments["recipe"])))
    student.load_state_dict(load_file(result["weights"]))
    target, output = (
        functional.log_softmax(torch.as_tensor(values), dim=-1)
        for values in (
            to_module(work.network)(batch.input_ids, batch.attention_mask, batch.token_type_ids).detach(),
            student(batch.input_ids, batch.attention_mask, batch.token_type_ids).detach(),
        )
    )
    divergence = float((target.exp() * (target - output)).sum(-1).mean())
    assert result["best_score"] == pytest.approx(-divergence, abs=1e-5)
