"""What a job's trainings are made of, as far as it follows from the budget and the model."""

from compressors.description import Anatomy
from compressors.recovery.config import Augmentation
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import TrainingData
from workers.operations.recover import evaluations
from workers.operations.training import MOST_STATE_BYTES
from workers.operations.training import affordable_tokens
from workers.operations.training import default_learning_rate
from workers.operations.training import default_losses

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


def test_a_short_training_is_evaluated_less_often():
    assert [evaluations(seconds) for seconds in (5.0, 32.0, 60.0, 600.0)] == [3, 4, 7, 12]
