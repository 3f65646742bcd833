"""The training run as a whole: it heals, it is deterministic, it survives a kill, it keeps to its budget."""

import dataclasses
import itertools
import json
import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from compressors.network import EncoderNetwork
from compressors.recovery import checkpoint
from compressors.recovery import run as run_module
from compressors.recovery.config import LossWeights
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import UNLABELLED
from compressors.recovery.data import TrainingData
from compressors.recovery.data import collate
from compressors.recovery.objective import Objective
from compressors.recovery.objective import state_layers_for
from compressors.recovery.prepare import prepare
from compressors.recovery.recover import RecoveryResult
from compressors.recovery.recover import fingerprint
from compressors.recovery.recover import recover
from compressors.recovery.teacher import LiveTeacher
from compressors.recovery.teacher import TeacherCache
from compressors.torch_module import to_module
from infra.errors import InvalidInputError
from paretune.artifact.encoder import CompressedEncoder
from tests.unit.recovery.conftest import make_texts

StudentOf = Callable[[EncoderNetwork], CompressedEncoder]
SHORT = RecoveryConfig(seconds=None, epochs=5, learning_rate=2e-3, batch_size=16, evaluations=5)


def run(network: EncoderNetwork, student: CompressedEncoder, texts: TrainingData, config: RecoveryConfig, **more):
    data = prepare(texts, config)
    states = state_layers_for(student, len(network.layers), config)
    teacher = TeacherCache.build(network, data.examples, state_layers=states)
    return recover(student, teacher, data, config, **more)


def stop_after(steps: int) -> Callable[[], bool]:
    calls = itertools.count(1)
    return lambda: next(calls) >= steps


def steps_saved(directory: Path) -> int:
    file = directory / checkpoint.FILE
    if not file.exists():
        return -1
    with file.open("rb") as saved:  # one handle: the run replaces the file at any moment
        header = json.loads(saved.read(int.from_bytes(saved.read(8), "little")))
    return int(json.loads(header["__metadata__"]["position"])["step"])


def same(first: RecoveryResult, second: RecoveryResult) -> bool:
    return first.state_dict.keys() == second.state_dict.keys() and all(
        torch.equal(tensor, second.state_dict[name]) for name, tensor in first.state_dict.items()
    )


@pytest.mark.parametrize(
    "change",
    [
        {"losses": LossWeights(task=0, logits=1, hidden=0)},
        {"losses": LossWeights(task=0, logits=1, hidden=1)},
        {"average": 0.9, "train_embeddings": True},
    ],
)
def test_training_brings_a_damaged_classifier_closer_to_the_dense_one(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf, change: dict
) -> None:
    config = SHORT.model_copy(update=change)
    result = run(classifier, student_of(classifier), texts, config)
    assert result.improved
    assert result.best_score > 0.7 * result.start_score  # a divergence, negated: at most 0.7 of what it was
    assert [point.step for point in result.curve] == sorted({point.step for point in result.curve})


def test_the_score_is_that_of_the_returned_weights_on_the_held_back_texts(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf
) -> None:
    student = student_of(classifier)
    result = run(classifier, student, texts, SHORT)
    data = prepare(texts, SHORT)
    assert not set(data.train) & set(data.held)
    batch = collate(data.examples, data.held)
    with torch.no_grad():
        target = to_module(classifier)(batch.input_ids, batch.attention_mask).log_softmax(-1)
        output = student(batch.input_ids, batch.attention_mask).log_softmax(-1)
    divergence = (target.exp() * (target - output)).sum(-1).mean()
    assert result.best_score == pytest.approx(-float(divergence), abs=1e-5)
    assert result.best_score == max(point.score for point in result.curve)


def test_the_score_is_computed_in_f32_whatever_the_training_is(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf
) -> None:
    """The trainings of a race are compared by it. Products in bf16 are emulated where the processor has none."""
    data, student, teacher = prepare(texts, SHORT), student_of(classifier).eval(), LiveTeacher(classifier, (0, 1, 2))
    held = [collate(data.examples, data.held)]
    objectives = {name: Objective(student, teacher, SHORT, name, held) for name in ("f32", "bf16")}
    scores = {name: objective.divergence(student, held) for name, objective in objectives.items()}
    assert scores["bf16"] == scores["f32"]
    losses = {
        name: float(objective.loss(student, held[0], rows=len(data.held), labelled=0).detach())
        for name, objective in objectives.items()
    }
    assert losses["bf16"] != losses["f32"], "the training is"


def test_an_embedding_model_is_healed_without_labels(embedder: EncoderNetwork, student_of: StudentOf) -> None:
    texts = make_texts(160, embedder.embeddings.word.shape[0], labelled=False)
    result = run(embedder, student_of(embedder), texts, SHORT)
    assert result.best_score > 0.7 * result.start_score


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf
) -> None:
    config = SHORT.model_copy(update={"epochs": 1.0})
    results = [run(classifier, student_of(classifier), texts, config) for _ in range(2)]
    assert same(*results)
    other = run(classifier, student_of(classifier), texts, config.model_copy(update={"seed": 1}))
    assert not same(results[0], other)


def test_batches_that_pass_in_parts_train_alike(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf
) -> None:
    config = SHORT.model_copy(update={"epochs": 2.0, "learning_rate": 1e-3, "losses": LossWeights(task=0)})
    whole = run(classifier, student_of(classifier), texts, config)
    parts = run(classifier, student_of(classifier), texts, config.model_copy(update={"tokens_per_pass": 40}))
    assert [point.loss for point in parts.curve] == pytest.approx([point.loss for point in whole.curve], rel=1e-2)
    assert parts.best_score == pytest.approx(whole.best_score, rel=2e-2)


def test_every_label_of_a_batch_counts_alike_in_whatever_part_it_is(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf
) -> None:
    labels = [label if row % 3 == 0 else UNLABELLED for row, label in enumerate(texts.labels)]
    some = TrainingData(texts.input_ids, labels)
    losses = LossWeights(task=1, logits=0, hidden=0)
    config = SHORT.model_copy(update={"epochs": 1.0, "learning_rate": 1e-4, "losses": losses})
    whole = run(classifier, student_of(classifier), some, config)
    parts = run(classifier, student_of(classifier), some, config.model_copy(update={"tokens_per_pass": 40}))
    assert [point.loss for point in parts.curve] == pytest.approx([point.loss for point in whole.curve], rel=1e-3)


def test_embeddings_of_few_texts_at_a_time_train_alike(embedder: EncoderNetwork, student_of: StudentOf) -> None:
    texts = make_texts(160, embedder.embeddings.word.shape[0], labelled=False)
    whole = run(embedder, student_of(embedder), texts, SHORT)
    pairs = run(embedder, student_of(embedder), texts, SHORT.model_copy(update={"tokens_per_pass": 30}))
    # Two or three texts can all be equally similar: what they are off by must not be held against that.
    assert max(point.loss for point in pairs.curve) < 1.5 * max(point.loss for point in whole.curve)
    assert pairs.best_score == pytest.approx(whole.best_score, rel=0.2)


def test_steps_that_drive_a_student_away_are_taken_back_and_made_smaller(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    healed = student_of(classifier)
    run(classifier, healed, texts, SHORT)
    start = {name: tensor.clone() for name, tensor in healed.state_dict().items()}
    config = SHORT.model_copy(update={"epochs": 10.0, "learning_rate": 0.04, "evaluations": 10, "seed": 2})

    def train() -> RecoveryResult:
        healed.load_state_dict(start)
        return run(classifier, healed, texts, config)

    careful = train()
    monkeypatch.setattr(run_module, "_EXCURSION", float("inf"))
    stubborn = train()
    assert not stubborn.improved, "these steps are too large"
    assert careful.improved


def test_a_run_goes_on_in_the_smaller_steps_that_it_had_found(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf, tmp_path: Path
) -> None:
    config = SHORT.model_copy(update={"learning_rate": 0.1, "evaluations": 10})
    whole = run(classifier, student_of(classifier), texts, config)
    run(classifier, student_of(classifier), texts, config, checkpoint_dir=tmp_path, should_stop=stop_after(20))
    with safe_open(tmp_path / checkpoint.FILE, framework="pt") as file:
        assert json.loads(file.metadata()["position"])["rate"] < 1
    again = run(classifier, student_of(classifier), texts, config, checkpoint_dir=tmp_path)
    assert same(whole, again)


def test_a_start_that_training_makes_worse_is_returned_unchanged(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf
) -> None:
    student = student_of(classifier)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    result = run(classifier, student, texts, SHORT.model_copy(update={"learning_rate": 10.0}))
    assert not result.improved
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_cancelled_run_goes_on_where_it_was_and_ends_the_same(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf, tmp_path: Path, average: float | None
) -> None:
    config = SHORT.model_copy(update={"epochs": 3.0, "average": average})
    undisturbed = run(classifier, student_of(classifier), texts, config)
    for steps in (7, 4):
        options = {"checkpoint_dir": tmp_path, "should_stop": stop_after(steps)}
        first = run(classifier, student_of(classifier), texts, config, **options)
        assert first.stopped == "cancelled"
    resumed = run(classifier, student_of(classifier), texts, config, checkpoint_dir=tmp_path)
    assert resumed.stopped == "finished"
    assert same(undisturbed, resumed)
    assert [(p.step, p.score, p.loss) for p in resumed.curve] == [(p.step, p.score, p.loss) for p in undisturbed.curve]


def test_a_checkpoint_of_another_config_or_a_damaged_one_is_not_continued(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf, tmp_path: Path
) -> None:
    run(classifier, student_of(classifier), texts, SHORT.model_copy(update={"epochs": 1.0}), checkpoint_dir=tmp_path)
    assert checkpoint.load(tmp_path, "something else") is None
    result = run(classifier, student_of(classifier), texts, SHORT, checkpoint_dir=tmp_path)
    assert result.curve[0].step == 0
    file = tmp_path / checkpoint.FILE
    file.write_bytes(file.read_bytes()[:1000])
    assert run(classifier, student_of(classifier), texts, SHORT, checkpoint_dir=tmp_path).steps == result.steps


def test_a_run_killed_with_sigkill_ends_with_the_undisturbed_weights(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf, tmp_path: Path
) -> None:
    config = SHORT.model_copy(update={"epochs": 6.0, "checkpoint_seconds": 0.0})

    def train(name: str) -> None:
        result = run(classifier, student_of(classifier), texts, config, checkpoint_dir=tmp_path / f"work-{name}")
        save_file(result.state_dict, tmp_path / name)

    def start(name: str) -> ForkProcess:
        process = multiprocessing.get_context("fork").Process(target=train, args=(name,))
        process.start()
        return process

    killed = start("killed")
    deadline = time.monotonic() + 60
    while steps_saved(tmp_path / "work-killed") < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.kill()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL, "the run was over before it could be killed"
    assert steps_saved(tmp_path / "work-killed") >= 5
    for name in ("killed", "whole"):
        process = start(name)
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_budget_in_seconds_is_kept_and_the_learning_rate_has_decayed(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf
) -> None:
    started = time.perf_counter()
    result = run(classifier, student_of(classifier), texts, SHORT.model_copy(update={"seconds": 2.0, "epochs": None}))
    assert time.perf_counter() - started < 8
    assert 0.5 < result.seconds < 4
    assert result.stopped == "finished"


def test_a_killed_training_with_a_budget_in_seconds_ends_within_a_tenth_of_the_undisturbed_one(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf, tmp_path: Path
) -> None:
    config = SHORT.model_copy(update={"seconds": 20.0, "epochs": None, "checkpoint_seconds": 2.0, "precision": "f32"})

    def clock() -> Callable[[], float]:
        ticks = itertools.count()
        return lambda: 0.05 * next(ticks)

    undisturbed = run(classifier, student_of(classifier), texts, config, clock=clock())
    last, saved = tmp_path / checkpoint.FILE, list[bytes]()

    def kill() -> bool:
        """Keep the checkpoint as a kill would leave it: the one that is written for a cancelled run is not."""
        saved.append(last.read_bytes())
        return len(saved) == undisturbed.steps // 2 - 5

    run(classifier, student_of(classifier), texts, config, clock=clock(), checkpoint_dir=tmp_path, should_stop=kill)
    last.write_bytes(saved[-1])
    assert 0.4 < steps_saved(tmp_path) / (undisturbed.steps // 2 - 5) < 1, "some steps are trained again"
    resumed = run(classifier, student_of(classifier), texts, config, clock=clock(), checkpoint_dir=tmp_path)
    assert resumed.stopped == "finished"
    assert resumed.seconds == pytest.approx(undisturbed.seconds, rel=0.1)
    assert resumed.steps == pytest.approx(undisturbed.steps, rel=0.1)
    gained = undisturbed.best_score - undisturbed.start_score
    assert resumed.start_score == undisturbed.start_score
    assert resumed.best_score == pytest.approx(undisturbed.best_score, abs=0.1 * gained)


@pytest.mark.parametrize(("each", "expected"), [(1.0, 5), (4.0, 3), (80.0, 2)])
def test_evaluations_that_take_long_are_fewer(
    classifier: EncoderNetwork, student_of: StudentOf, texts: TrainingData, each: float, expected: int
) -> None:
    now = 0.0

    def evaluate(_: CompressedEncoder) -> float:
        nonlocal now
        now += each
        return 0.0

    def clock() -> float:
        nonlocal now
        now += 0.01
        return now

    config = SHORT.model_copy(update={"seconds": 100.0})
    result = run(classifier, student_of(classifier), texts, config, evaluate=evaluate, clock=clock)
    assert len(result.curve) - 1 == expected


def test_patience_ends_a_run_that_gets_no_better(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf
) -> None:
    qualities = iter([0.0, 0.5, 0.9, *[0.1] * 100])
    config = SHORT.model_copy(update={"patience": 2})
    result = run(classifier, student_of(classifier), texts, config, evaluate=lambda _: next(qualities))
    assert result.stopped == "patience"
    assert result.best_score == 0.9
    assert [point.score for point in result.curve] == [0.0, 0.5, 0.9, 0.1, 0.1]


def test_a_cached_teacher_and_a_live_one_train_alike(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf
) -> None:
    config = SHORT.model_copy(update={"epochs": 1.0, "learning_rate": 1e-4, "losses": LossWeights(hidden=1)})
    cached = run(classifier, student_of(classifier), texts, config)
    student = student_of(classifier)
    teacher = LiveTeacher(classifier, state_layers_for(student, len(classifier.layers), config))
    live = recover(student, teacher, prepare(texts, config), config)
    assert live.best_score == pytest.approx(cached.best_score, rel=1e-2)


def test_a_teacher_of_other_texts_or_without_states_is_refused(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf
) -> None:
    data = prepare(texts, SHORT)
    other = TeacherCache.build(classifier, make_texts(10, 20))
    with pytest.raises(InvalidInputError, match="other texts"):
        recover(student_of(classifier), other, data, SHORT)
    config = SHORT.model_copy(update={"losses": LossWeights(hidden=1)})
    with pytest.raises(InvalidInputError, match="states"):
        recover(student_of(classifier), LiveTeacher(classifier), data, config)


def test_given_texts_choose_the_checkpoint_and_a_run_with_others_is_not_continued(
    classifier: EncoderNetwork, texts: TrainingData, student_of: StudentOf, tmp_path: Path
) -> None:
    config = SHORT.model_copy(update={"epochs": 2.0})
    vocabulary = classifier.embeddings.word.shape[0]
    student, held = student_of(classifier), make_texts(80, vocabulary, seed=5, labelled=False)
    data = prepare(texts, config, held)
    teacher = TeacherCache.build(classifier, data.examples, state_layers=(0, 1, 2))
    result = recover(student, teacher, data, config, checkpoint_dir=tmp_path)
    batch = collate(held, range(len(held)))
    with torch.no_grad():
        target = to_module(classifier)(batch.input_ids, batch.attention_mask).log_softmax(-1)
        output = student(batch.input_ids, batch.attention_mask).log_softmax(-1)
    assert result.best_score == pytest.approx(-float((target.exp() * (target - output)).sum(-1).mean()), abs=1e-5)

    start = student_of(classifier)
    others = dataclasses.replace(data, held=data.held[:-1], train=[*data.train, data.held[-1]])
    assert checkpoint.load(tmp_path, fingerprint(start, data, config)) is not None
    assert checkpoint.load(tmp_path, fingerprint(start, others, config)) is None
