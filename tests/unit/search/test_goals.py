from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InfeasibleGoalError
from profilers.types import Estimate
from search.finalise import finalists
from search.goals import check_reachable
from search.goals import check_sane
from search.goals import choose
from search.guard import guarded_front
from search.guard import rule
from search.pareto import dominates
from search.requests import Goal
from search.standing import Standing
from search.standing import is_reliable
from tests.unit.search.synthetic import around
from tests.unit.search.synthetic import measurement


def entry(name, ratio, drop, *, baseline=None, size=100, noise=0.01, drop_noise=0.002, status="ok"):
    return Standing(
        trial_id=name,
        baseline=baseline,
        ratio=Estimate(value=ratio, low=ratio - noise, high=ratio + noise),
        latency_ms=ratio * 20,
        loss=drop,
        drop=Estimate(value=drop, low=drop - drop_noise, high=drop + drop_noise),
        expected_drop=drop,
        size_bytes=size,
        confirmed=True,
        status=status,
        reliable=status == "ok",
    )


FP32 = entry("fp32", 1.0, 0.0, baseline="fp32")
INT8 = entry("int8", 0.45, 0.005, baseline="int8_one_liner")
BASELINES = [FP32, INT8]


def test_guard_asks_for_a_clear_win_over_the_best_baseline_of_no_worse_quality():
    assert rule(entry("a", 0.40, 0.005), BASELINES).passed
    overlapping = rule(entry("b", 0.435, 0.005), BASELINES)
    assert not overlapping.passed
    assert overlapping.rival == "int8"
    # Slower than int8, but of a quality that int8 clearly does not reach: fp32 is the rival.
    better = rule(entry("c", 0.6, 0.0), BASELINES)
    assert better.passed
    assert better.rival == "fp32"
    # The same with examples that cannot tell the two apart: int8 is the rival.
    assert not rule(entry("d", 0.6, 0.0, drop_noise=0.01), BASELINES).passed
    assert not rule(entry("e", 0.1, 0.0, status="noisy"), BASELINES).passed


DENSE = replace(entry("dense", 0.8, 0.0), dense=True)


def test_the_dense_model_in_its_best_graph_is_a_rival_too():
    near, clear, worse = entry("near", 0.79, 0.0), entry("clear", 0.7, 0.0), entry("worse", 0.79, 0.002)
    assert rule(near, BASELINES).passed, "faster than fp32, of a quality that int8 does not reach"
    front, rulings = guarded_front([near, clear, worse, DENSE, *BASELINES])
    assert (rulings["near"].passed, rulings["near"].rival) == (False, "dense")
    assert rulings["near"].reason == "not clearly faster than the dense model in its best graph, which is as good"
    assert rulings["clear"].passed
    assert not rulings["worse"].passed, "the dense model is better as well"
    assert [point.trial_id for point in front] == ["clear"]
    # What lies within the noise of either is in no front, whichever of them is the faster.
    wide = replace(DENSE, ratio=Estimate(value=0.8, low=0.6, high=1.0))
    quick = entry("quick", 0.75, 0.0, baseline="openvino_bf16")
    assert not guarded_front([clear, wide, quick, FP32])[1]["clear"].passed


def test_the_dense_model_only_has_to_beat_the_baselines():
    sibling = replace(entry("bf16", 0.79, 0.001), dense=True)
    front, rulings = guarded_front([DENSE, sibling, *BASELINES])
    assert rulings["dense"].passed
    assert rulings["dense"].rival == "fp32"
    assert rulings["bf16"].passed, "the same model in another arithmetic is not held against it"
    assert {point.trial_id for point in front} == {"dense", "bf16"}
    slow = replace(entry("slow", 0.995, 0.0), dense=True)
    assert not guarded_front([slow, FP32])[1]["slow"].passed


@pytest.mark.parametrize("status", ["ok", "noisy", "slower_than_front"])
def test_the_dense_model_is_always_measured_again(status):
    front = [entry(f"t{i}", 0.1 + 0.01 * i, 0.05 - 0.002 * i, noise=0.001, drop_noise=0.0005) for i in range(26)]
    dense = replace(entry("dense", 0.99, 0.0, status=status), dense=True)
    names = [e.trial_id for e in finalists([*front, dense, *BASELINES], Goal(max_drop=0.01))]
    assert "dense" in names
    assert len(names) == len(finalists([*front, *BASELINES], Goal(max_drop=0.01))) + 1, "it takes nobody's place"
    chosen = finalists([entry("slower", 0.9, 0.0), replace(dense, ratio=around(0.5))], Goal())
    assert [e.trial_id for e in chosen] == ["dense"], "what cannot beat it is not measured again"


@pytest.mark.parametrize(
    ("objective", "reason", "message"),
    [
        ("p50", "clearly faster than int8_one_liner", "4.00 x as fast as fp32."),
        ("p99", "clearly faster at p99 than int8_one_liner", "4.00 x as fast as fp32 at p99."),
        ("throughput", "clearly higher in throughput than int8_one_liner", "4.00 x fp32 in throughput."),
        ("peak_memory", "clearly smaller in memory than int8_one_liner", "4.00 x smaller in memory than fp32."),
    ],
)
def test_rulings_and_verdicts_name_the_objective(objective, reason, message):
    entries = [replace(known, objective=objective) for known in [*BASELINES, entry("a", 0.25, 0.005)]]
    front, rulings = guarded_front(entries)
    assert rulings["a"].reason.startswith(reason)
    assert choose(Goal(), front, entries[:2]).message.endswith(message)


@st.composite
def candidates(draw):
    count = draw(st.integers(0, 12))
    return [
        entry(
            f"t{i}",
            draw(st.floats(0.05, 1.2)),
            draw(st.floats(-0.01, 0.2)),
            size=draw(st.integers(1, 3)),
            noise=draw(st.floats(0.0, 0.05)),
        )
        for i in range(count)
    ]


@given(candidates())
def test_no_front_point_is_slower_than_a_baseline_of_its_quality_or_dominated(entries):
    front, rulings = guarded_front([*entries, *BASELINES])
    assert set(rulings) == {e.trial_id for e in entries}
    for point in front:
        for baseline in BASELINES:
            assert point.ratio.high < baseline.ratio.low or baseline.drop.value > point.drop.high
        passed = [e for e in entries if rulings[e.trial_id].passed]
        assert not any(dominates(e.objectives, point.objectives) for e in passed)
    assert [p.ratio.value for p in front] == sorted(p.ratio.value for p in front)


@given(candidates(), st.floats(0.0, 0.2))
def test_best_by_drop_is_the_fastest_that_meets_it(entries, limit):
    front, _ = guarded_front([*entries, *BASELINES])
    choice = choose(Goal(max_drop=limit), front, BASELINES)
    meeting = [e for e in front if e.drop.value <= limit]
    if meeting:
        assert choice.verdict == "better_model"
        assert choice.best.ratio.value == min(e.ratio.value for e in meeting)
    else:
        assert choice.verdict == "leave_it_alone"
        assert choice.best == (INT8 if limit >= 0.005 else FP32)


def test_best_by_latency_is_the_most_accurate_below_the_ceiling():
    front = [entry("fast", 0.2, 0.05), entry("good", 0.4, 0.001)]
    assert choose(Goal(max_latency_ms=10), front, BASELINES).best.trial_id == "good"
    assert choose(Goal(max_latency_ms=5), front, BASELINES).best.trial_id == "fast"
    out = choose(Goal(max_latency_ms=1), front, BASELINES)
    assert out.verdict == "goal_out_of_reach"
    assert out.best.trial_id == "fast"
    assert "4 ms" in out.message
    assert choose(Goal(max_latency_ms=25), [], BASELINES).verdict == "leave_it_alone"


def test_without_a_goal_the_best_is_the_fastest_free_lunch():
    front = [entry("cheap", 0.2, 0.05), entry("free", 0.4, 0.001)]
    assert choose(Goal(), front, BASELINES).best.trial_id == "free"
    assert choose(Goal(), [], []).verdict == "nothing_measured"


@pytest.mark.parametrize("goal", [Goal(), Goal(max_drop=0.01), Goal(max_latency_ms=10)])
def test_a_model_that_is_expected_to_lose_does_not_win_by_what_was_seen(goal):
    destroyed = replace(entry("destroyed", 0.05, -0.23), expected_drop=0.17, loss=0.17)
    assert choose(goal, [destroyed, entry("good", 0.3, 0.001)], BASELINES).best.trial_id == "good"


def test_nonsense_goals_are_refused():
    with pytest.raises(InfeasibleGoalError):
        check_sane(Goal(max_latency_ms=1e-6))
    with pytest.raises(InfeasibleGoalError, match="smallest allowed model"):
        check_reachable(Goal(max_latency_ms=1.0), dense_ms=20.0, fastest_ratio=0.1)
    check_reachable(Goal(max_latency_ms=2.1), dense_ms=20.0, fastest_ratio=0.1)
    with pytest.raises(InfeasibleGoalError, match=r"about 2 ms"):
        check_reachable(Goal(max_latency_ms=1.3), dense_ms=20.0, fastest_ratio=0.1, slack=0.7)
    check_reachable(Goal(max_latency_ms=1.5), dense_ms=20.0, fastest_ratio=0.1, slack=0.7)


def test_finalists_are_few_and_contain_what_matters():
    front = [entry(f"t{i}", 0.1 + 0.01 * i, 0.05 - 0.002 * i, noise=0.001, drop_noise=0.0005) for i in range(26)]
    dominated = [entry("bad", 0.3, 0.2), entry("slow", 0.9, 0.004)]
    goal = Goal(max_drop=0.01)
    chosen = finalists([*front, *dominated, *BASELINES], goal)
    names = [e.trial_id for e in chosen]
    best = choose(goal, guarded_front([*front, *BASELINES])[0], BASELINES).best
    assert names[0] == best.trial_id
    assert {"fp32", "int8"} <= set(names)
    assert len(names) <= 8 + 3
    assert not {"bad", "slow"} & set(names)
    # The goal allows 1 %: nothing far beyond it is confirmed.
    assert all(e.drop.value <= 0.02 for e in chosen)


def test_a_lucky_winner_does_not_keep_others_from_being_confirmed():
    lucky = entry("lucky", 0.05, -0.01, size=10)
    behind = [entry(f"t{i}", 0.06 + 0.02 * i, 0.004 - 0.001 * i) for i in range(4)]
    chosen = finalists([lucky, *behind, *BASELINES], Goal(max_drop=0.01))
    assert chosen[0].trial_id == "lucky"
    assert {"t0", "t1", "t2", "t3"} <= {e.trial_id for e in chosen}


def test_the_next_fastest_within_the_drop_is_confirmed_though_the_best_dominates_it():
    """On final examples the best may miss the goal: then the answer must not be far behind it."""
    best = entry("best", 0.10, 0.008)
    second, third = entry("second", 0.15, 0.009), entry("third", 0.16, 0.0095)
    slow = [entry(f"t{i}", 0.17 + 0.02 * i, 0.007 - 0.001 * i) for i in range(6)]
    chosen = finalists([best, second, third, *slow, *BASELINES], Goal(max_drop=0.01), 5)
    names = [e.trial_id for e in chosen if e.baseline is None]
    assert names[:3] == ["best", "second", "third"]
    assert len(names) == 5


def test_noise_is_confirmed_again_and_named_as_the_reason():
    noisy = entry("noisy", 0.3, 0.005, status="noisy")
    slow = entry("given up", 0.3, 0.005, status="slower_than_front")
    names = [e.trial_id for e in finalists([noisy, slow, *BASELINES], Goal())]
    assert "noisy" in names
    assert "given up" not in names
    front, _ = guarded_front([noisy, *BASELINES])
    choice = choose(Goal(), front, BASELINES, noisy=1)
    assert choice.verdict == "leave_it_alone"
    assert "machine was busy" in choice.message


def test_a_near_miss_is_confirmed_because_a_sharper_measurement_may_pass():
    near = entry("near", 0.44, 0.005, noise=0.02)
    assert not rule(near, BASELINES).passed
    assert "near" in [e.trial_id for e in finalists([near, *BASELINES], Goal())]


@pytest.mark.parametrize(
    ("status", "control", "half_width", "expected"),
    [
        ("ok", 1.0, 0.01, True),
        ("noisy", 1.0, 0.05, True),  # an honest, wide interval
        ("noisy", 1.0, 0.2, True),
        ("noisy", 1.0, 0.3, False),
        ("noisy", 1.1, 0.01, False),  # the reference differs from itself
        ("slower_than_front", 1.0, 0.01, False),
    ],
)
def test_which_measurements_may_decide(status, control, half_width, expected):
    measured = measurement(0.5, status=status).model_copy(
        update={"control_ratio": around(control), "ratio": around(0.5, half_width)}
    )
    assert is_reliable(measured) is expected


def test_what_is_too_large_is_not_the_answer_whatever_else_it_is():
    small, large = entry("small", 0.30, 0.004, size=20_000_000), entry("large", 0.20, 0.004, size=30_000_000)
    baselines = [replace(FP32, size_bytes=90_000_000), replace(INT8, size_bytes=23_000_000)]
    front, _ = guarded_front([small, large, *baselines])
    assert choose(Goal(max_drop=0.01), front, baselines).best == large
    assert choose(Goal(max_drop=0.01, max_size_mb=25), front, baselines).best == small
    assert choose(Goal(max_size_mb=25), front, baselines).best == small
    assert choose(Goal(max_latency_ms=7.0, max_size_mb=25), front, baselines).best == small
    none = choose(Goal(max_drop=0.01, max_size_mb=10), front, baselines)
    assert (none.verdict, none.best) == ("goal_out_of_reach", small)
    assert "smallest takes 20 MB" in none.message
    missed = choose(Goal(max_drop=0.001, max_size_mb=25), front, baselines[1:])
    assert (missed.verdict, missed.best) == ("goal_out_of_reach", small)
    assert "fits into 25 MB" in missed.message
