"""Threads and arithmetic of a training are those in which its steps are fastest here."""

import itertools

import pytest
import torch

from compressors.recovery.config import LossWeights
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.pace import Pace
from compressors.recovery.pace import fastest
from compressors.recovery.prepare import prepare
from compressors.recovery.recover import fingerprint
from compressors.recovery.recover import recover
from compressors.recovery.run import Run
from compressors.recovery.teacher import LiveTeacher

TIMED = RecoveryConfig(seconds=1.0, losses=LossWeights(hidden=0), learning_rate=2e-3, batch_size=16, evaluations=2)


def steps_of(seconds_by_threads, bf16=1.0):
    tried = []

    def step_seconds(pace):
        tried.append(pace)
        return seconds_by_threads[pace.threads] * (bf16 if pace.precision == "bf16" else 1.0)

    return step_seconds, tried


def test_threads_are_halved_as_long_as_that_helps():
    step_seconds, tried = steps_of({16: 1.0, 8: 0.6, 4: 0.4, 2: 0.5})
    assert fastest(16, ["f32"], step_seconds) == (Pace(4, "f32"), 0.4)
    assert [pace.threads for pace in tried] == [16, 8, 4, 2]
    step_seconds, tried = steps_of({16: 1.0, 8: 0.97})
    assert fastest(16, ["f32"], step_seconds)[0].threads == 16, "a difference that may be noise is none"
    assert len(tried) == 2


@pytest.mark.parametrize(("bf16", "expected"), [(0.5, "bf16"), (0.98, "f32"), (1.3, "f32")])
def test_bf16_is_taken_where_it_is_faster(bf16, expected):
    step_seconds, _ = steps_of({8: 0.5, 4: 0.8}, bf16)
    assert fastest(8, ["f32", "bf16"], step_seconds)[0] == Pace(8, expected)


def test_few_threads_and_those_that_were_asked_for_stay():
    step_seconds, tried = steps_of({2: 1.0, 8: 1.0})
    assert fastest(2, ["f32"], step_seconds)[0].threads == 2
    assert fastest(8, ["f32"], step_seconds, fewest=8)[0].threads == 8
    assert len(tried) == 2


def test_a_training_takes_the_arithmetic_that_it_timed(classifier, texts, student_of, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    timed = {}

    def seconds(run, warm):
        assert warm == (run.pace.precision in timed)
        timed[run.pace.precision] = {"f32": 0.02, "bf16": 0.01}[run.pace.precision]
        return timed[run.pace.precision]

    monkeypatch.setattr(Run, "_measure_step", seconds)
    data, teacher = prepare(texts, TIMED), LiveTeacher(classifier, ())
    assert recover(student_of(classifier), teacher, data, TIMED).precision == "bf16"
    assert set(timed) == {"f32", "bf16"}
    counted = TIMED.model_copy(update={"seconds": None, "steps": 2})
    assert recover(student_of(classifier), teacher, data, counted).precision == "f32", "steps are the same everywhere"


def test_a_resumed_run_goes_on_at_its_pace_and_threads_are_given_back(
    classifier, texts, student_of, tmp_path, monkeypatch
):
    torch.set_num_threads(4)
    monkeypatch.setattr(
        "compressors.recovery.run.fastest", lambda threads, precisions, step_seconds, fewest: (Pace(2, "bf16"), 0.05)
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

    def slowly(run, warm):
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
