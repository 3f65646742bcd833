"""Threads and arithmetic of a training are those in which its steps are fastest here."""

import itertools

import pytest
import torch

from compressors.recovery.config import LossWeights
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.pace import Pace
from compressors.recovery.pace import Paces
from compressors.recovery.pace import fastest
from compressors.recovery.pace import timed_batches
from compressors.recovery.precision import BF16_INSTRUCTIONS
from compressors.recovery.precision import candidate_precisions
from compressors.recovery.prepare import prepare
from compressors.recovery.quantization_aware import finishing
from compressors.recovery.recover import fingerprint
from compressors.recovery.recover import recover
from compressors.recovery.run import Run
from compressors.recovery.teacher import LiveTeacher
from compressors.torch_module import to_module
from tests.unit.recovery.conftest import shrink

TIMED = RecoveryConfig(seconds=1.0, losses=LossWeights(hidden=0), learning_rate=2e-3, batch_size=16, evaluations=2)


def steps_of(seconds_by_threads, bf16=1.0):
    tried = []

    def step_seconds(pace):
        tried.append(pace)
        return seconds_by_threads[pace.threads] * (bf16 if pace.precision == "bf16" else 1.0)

    return step_seconds, tried


def test_threads_are_halved_as_long_as_that_helps():
    step_seconds, tried = steps_of({16: 1.0, 8: 0.6, 4: 0.4, 2: 0.5})
    assert fastest(Pace(16, "f32"), ["f32"], step_seconds) == (Pace(4, "f32"), 0.4)
    assert [pace.threads for pace in tried] == [16, 8, 4, 2]
    step_seconds, tried = steps_of({16: 1.0, 8: 0.97})
    assert fastest(Pace(16, "f32"), ["f32"], step_seconds)[0].threads == 16, "a difference that may be noise is none"
    assert len(tried) == 2


@pytest.mark.parametrize(("bf16", "expected"), [(0.5, "bf16"), (0.98, "f32"), (1.3, "f32")])
def test_bf16_is_taken_where_it_is_faster(bf16, expected):
    step_seconds, _ = steps_of({8: 0.5, 4: 0.8}, bf16)
    assert fastest(Pace(8, "f32"), ["f32", "bf16"], step_seconds)[0] == Pace(8, expected)


def test_the_arithmetic_is_tried_before_threads_are_halved():
    step_seconds, tried = steps_of({8: 1.0, 4: 0.5, 2: 0.6}, 0.5)
    assert fastest(Pace(8, "f32"), ["f32", "bf16"], step_seconds) == (Pace(4, "bf16"), 0.25)
    assert tried == [Pace(8, "f32"), Pace(8, "bf16"), Pace(4, "bf16"), Pace(2, "bf16")]


def test_a_first_guess_is_held_against_the_other_arithmetic():
    step_seconds, tried = steps_of({4: 0.5, 2: 0.8}, 1.5)
    assert fastest(Pace(4, "bf16"), ["f32", "bf16"], step_seconds) == (Pace(4, "f32"), 0.5)
    assert tried == [Pace(4, "bf16"), Pace(4, "f32"), Pace(2, "f32")], "it began where the guess was"


def test_few_threads_and_those_that_were_asked_for_stay():
    step_seconds, tried = steps_of({2: 1.0, 8: 1.0})
    assert fastest(Pace(2, "f32"), ["f32"], step_seconds)[0].threads == 2
    assert fastest(Pace(8, "f32"), ["f32"], step_seconds, fewest=8)[0].threads == 8
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("steps", "precisions", "halving", "expected"),
    [(1.0, 2, False, 1), (9.0, 2, False, 1), (10.0, 2, False, 2), (10.0, 2, True, 1), (100.0, 2, True, 4)],
)
def test_a_pace_is_timed_on_as_many_batches_as_there_is_time_for(steps, precisions, halving, expected):
    assert timed_batches(steps, precisions, halving=halving) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"amx_bf16"}, ("f32", "bf16")),
        ({"avx512_bf16"}, ("f32", "bf16")),  # Zen 4: no tiles, and yet fast
        ({"avx512_f"}, ("f32",)),
    ],
)
def test_bf16_is_tried_wherever_the_processor_multiplies_it(names, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(names, True))
    assert candidate_precisions(TIMED) == expected
    assert candidate_precisions(TIMED.model_copy(update={"precision": "f32"})) == ("f32",)
    assert candidate_precisions(finishing(TIMED)) == ("f32",), "8-bit grids are finer than bf16"


class Stopwatch:
    """A clock that only steps move on: f32 takes a second, bf16 half of one. It notes what was timed."""

    def __init__(self, monkeypatch, processor=("amx_bf16",)):
        self.now, self.timed = 0.0, []
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(processor, True))
        monkeypatch.setattr(Run, "_update", lambda run, rows: self.advance(run.pace))
        measure = Run._measure_step

        def note(run, count, warm):
            self.timed.append((run.pace.precision, count))
            return measure(run, count, warm=warm)

        monkeypatch.setattr(Run, "_measure_step", note)

    def advance(self, pace):
        self.now += 0.5 if pace.precision == "bf16" else 1.0
        return 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("seconds", "expected", "timed"),
    [
        (60.0, "f32", [("f32", 1)]),  # two steps are more than 3 % of it
        (80.0, "bf16", [("f32", 1), ("bf16", 1)]),
        (350.0, "bf16", [("f32", 1), ("f32", 2), ("bf16", 2)]),
        (900.0, "bf16", [("f32", 1), ("f32", 4), ("bf16", 4)]),
    ],
)
def test_a_training_of_few_steps_tries_bf16_on_fewer_batches(
    classifier, texts, student_of, monkeypatch, seconds, expected, timed
):
    clock, config = Stopwatch(monkeypatch), TIMED.model_copy(update={"seconds": seconds})
    result = recover(
        student_of(classifier),
        LiveTeacher(classifier, ()),
        prepare(texts, config),
        config,
        clock=clock,
        should_stop=lambda: True,
    )
    assert (result.precision, clock.timed) == (expected, timed)


def test_a_budget_in_steps_is_the_same_everywhere(classifier, texts, student_of, monkeypatch):
    clock, counted = Stopwatch(monkeypatch), TIMED.model_copy(update={"seconds": None, "steps": 2})
    data, teacher = prepare(texts, counted), LiveTeacher(classifier, ())
    paces = Paces()
    paces.note("another", Pace(1, "bf16"), settled=True)
    assert recover(student_of(classifier), teacher, data, counted, clock=clock, paces=paces).precision == "f32"
    assert clock.timed == []


def test_later_trainings_of_a_job_begin_with_the_pace_that_was_found(classifier, texts, student_of, monkeypatch):
    clock, config, paces = Stopwatch(monkeypatch), TIMED.model_copy(update={"seconds": 80.0}), Paces()
    data, teacher = prepare(texts, config), LiveTeacher(classifier, ())

    def train(student):
        clock.timed.clear()
        done = recover(student, teacher, data, config, clock=clock, paces=paces, should_stop=lambda: True)
        assert done.precision == "bf16"
        return [precision for precision, _ in clock.timed]

    assert train(student_of(classifier)) == ["f32", "bf16"]
    assert set(train(student_of(classifier))) == {"bf16"}, "of this shape it is known"
    assert train(to_module(shrink(classifier, 2, 40))) == ["bf16", "f32"], "of another it is checked once"


def test_what_there_was_no_time_to_try_is_tried_by_the_next_training_of_the_shape(
    classifier, texts, student_of, monkeypatch
):
    clock, paces, found = Stopwatch(monkeypatch), Paces(), []
    for seconds in (60.0, 80.0):
        config = TIMED.model_copy(update={"seconds": seconds})
        data, teacher = prepare(texts, config), LiveTeacher(classifier, ())
        found.append(
            recover(
                student_of(classifier), teacher, data, config, clock=clock, paces=paces, should_stop=lambda: True
            ).precision
        )
    assert found == ["f32", "bf16"]


def test_a_pace_of_another_processor_or_of_more_threads_is_not_taken():
    paces = Paces()
    assert paces.guess(4, ["f32", "bf16"]) == Pace(4, "f32")
    paces.note("shape", Pace(4, "bf16"), settled=True)
    assert paces.known("shape", 4, ["f32", "bf16"]) == Pace(4, "bf16")
    assert paces.known("shape", 2, ["f32", "bf16"]) is None
    assert paces.known("shape", 4, ["f32"]) is None
    assert paces.known("other", 4, ["f32", "bf16"]) is None
    assert paces.guess(2, ["f32", "bf16"]) == Pace(2, "bf16")
    assert paces.guess(8, ["f32"]) == Pace(4, "f32")


MULTIPLIES_BF16 = any(torch.cpu.get_capabilities().get(name, False) for name in BF16_INSTRUCTIONS)


@pytest.mark.skipif(not MULTIPLIES_BF16, reason="this processor does not multiply bf16")
def test_a_student_trained_in_bf16_comes_as_near_to_the_dense_model(classifier, texts, student_of):
    """Within a tenth of what f32 wins: bf16 keeps 8 of 24 binary digits of what is multiplied, not of the weights."""
    results = {}
    for precision in ("f32", "bf16"):
        config = TIMED.model_copy(update={"seconds": None, "steps": 45, "precision": precision})
        results[precision] = recover(
            student_of(classifier), LiveTeacher(classifier, ()), prepare(texts, config), config
        )
    f32, bf16 = results["f32"], results["bf16"]
    assert bf16.precision == "bf16"
    assert bf16.start_score == f32.start_score, "scores are those of f32"
    gained = f32.best_score - f32.start_score
    assert gained > 0.2 * -f32.start_score
    assert bf16.best_score == pytest.approx(f32.best_score, abs=0.1 * gained)
    assert any(not torch.equal(tensor, bf16.state_dict[name]) for name, tensor in f32.state_dict.items())


def test_a_resumed_run_goes_on_at_its_pace_and_threads_are_given_back(
    classifier, texts, student_of, tmp_path, monkeypatch
):
    torch.set_num_threads(4)
    monkeypatch.setattr(
        "compressors.recovery.run.fastest", lambda first, precisions, step_seconds, fewest: (Pace(2, "bf16"), 0.05)
    )
    data, teacher = prepare(texts, TIMED), LiveTeacher(classifier, ())
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    stopped = recover(student_of(classifier), teacher, data, TIMED, checkpoint_dir=tmp_path, should_stop=lambda: True)
    assert stopped.precision == "bf16"
    assert torch.get_num_threads() == 4
    student = student_of(classifier)
    again = Run(student, teacher, data, TIMED, None, tmp_path, fingerprint(student, data, TIMED))
    assert again.pace == Pace(2, "bf16")
    assert again.position.precision == "bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    student = student_of(classifier)
    elsewhere = Run(student, teacher, data, TIMED, None, tmp_path, fingerprint(student, data, TIMED))
    assert elsewhere.pace.precision == "f32", "there are no tiles here"
    torch.set_num_threads(1)


def test_no_further_pace_is_tried_when_that_takes_too_long(classifier, texts, student_of, monkeypatch):
    torch.set_num_threads(8)
    tried, clock = [], itertools.count()
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)

    def slowly(run, count, warm):
        tried.append((run.pace.threads, warm))
        return 1.0

    monkeypatch.setattr(Run, "_measure_step", slowly)
    data, teacher = prepare(texts, TIMED), LiveTeacher(classifier, ())
    recover(student_of(classifier), teacher, data, TIMED, clock=lambda: float(next(clock)))
    assert tried == [(8, False)]
    tried.clear()
    recover(student_of(classifier), teacher, data, TIMED, clock=lambda: 0.0, should_stop=lambda: True)
    assert tried == [(8, False), (4, True)]
    torch.set_num_threads(1)


def test_threads_that_were_asked_for_are_given_back(classifier, texts, student_of):
    config = TIMED.model_copy(update={"seconds": None, "steps": 1, "threads": 2})
    recover(student_of(classifier), LiveTeacher(classifier, ()), prepare(texts, config), config)
    assert torch.get_num_threads() == 1
