"""What a job's trainings are made of, as far as it follows from the budget and the model."""

import json
from pathlib import Path

import pytest

from compressors.description import Anatomy
from compressors.recovery.config import Augmentation
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import UNLABELLED
from compressors.recovery.data import TrainingData
from infra.errors import InvalidDatasetError
from tests.unit.workers.test_bench import make_bench
from workers.operations.inputs import DataFile
from workers.operations.recover import evaluations
from workers.operations.training import FEW_TEXTS
from workers.operations.training import MOST_COPIES
from workers.operations.training import MOST_STATE_BYTES
from workers.operations.training import affordable_copies
from workers.operations.training import affordable_tokens
from workers.operations.training import default_learning_rate
from workers.operations.training import default_losses
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
