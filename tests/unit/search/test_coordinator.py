"""A job driven from submission to its end by executing its steps on a real database."""

from collections import Counter

import pytest
from sqlmodel import select

from infra.database.clock import database_now
from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import Step
from infra.steps import create_step
from search import coordinator
from search import service
from search.budget import AUDIT_SECONDS
from search.budget import FEW_AUDITS
from search.budget import FINALISTS
from search.budget import SHORT_FINALISTS
from search.budget import SLACK
from search.budget import budget_state
from search.pareto import non_dominated
from search.standing import standings
from tests.unit.search.synthetic import BASELINES
from tests.unit.search.synthetic import truth
from workers.stages.explore import BUDGET_SHARE
from workers.stages.explore import LEAST_SECONDS
from workers.stages.explore import _seconds as explore_seconds


def view(bench, job_id):
    with bench.database.read_session() as session:
        return service.front(session, session.get(Job, job_id))


@pytest.mark.parametrize(("strategy", "limit"), [("direct", 40), ("random", 80), ("guided", 24)])
def test_job_ends_with_a_confirmed_front_that_beats_the_baselines(bench, strategy, limit):
    job_id = bench.submit(strategy=strategy, goal={"max_drop": 0.02}, budget={"seconds": None, "trials": limit})
    job = bench.run(job_id)
    assert job.state == "succeeded", job.error
    assert job.summary["verdict"] == "better_model"
    trials = bench.trials(job_id)
    assert {t.facts["name"] for t in trials if t.source == "baseline"} == set(BASELINES)
    assert sum(t.source != "baseline" for t in trials) == limit
    assert len({t.digest for t in trials}) == len(trials) == len({t.number for t in trials})

    front = view(bench, job_id)
    assert front.status == "confirmed"
    assert front.best.quality.drop.value <= 0.02
    assert front.best.quality.split == "holdout"
    # No confirmed model within the goal is faster than the one that is called the best.
    within = [t for t in trials if t.final_measurement and truth(t)[1] <= 0.02]
    assert front.best.latency.ratio.value == pytest.approx(min(truth(t)[0] for t in within))
    fastest_baseline = min(ratio for ratio, drop, _ in BASELINES.values() if drop <= front.best.quality.drop.high)
    assert front.best.latency.ratio.high < fastest_baseline
    points = [(p.latency.ratio.value, p.quality.drop.value, p.size_bytes) for p in front.points]
    assert non_dominated(points).all()
    assert points == sorted(points)


def test_guided_knows_the_layers_that_matter(bench):
    job_id = bench.submit(strategy="guided", goal={"max_drop": 0.01}, budget={"seconds": None, "trials": 24})
    bench.run(job_id)
    points = view(bench, job_id).points
    heads = [sum(point.layers[layer].heads or 0 for point in points) for layer in range(3)]
    # The formulas say: the attention of layer 1 is worth five times as much as that of the layer that comes next.
    assert heads[1] >= max(heads)
    assert {t.source for t in bench.trials(job_id)} == {"baseline", "preset", "guided"}
    assert sum(t.source == "preset" for t in bench.trials(job_id)) == 2


def test_guided_measures_what_needs_no_search_before_it_learns(bench):
    job_id = bench.submit(strategy="guided", goal={"max_drop": 0.02}, budget={"seconds": None, "trials": 12})
    run_until_queued(bench, job_id, "table")
    assert bench.run(job_id, most=0).stage == "table"
    assert {t.source for t in bench.trials(job_id)} == {"baseline", "preset"}
    assert all(t.state in {"complete", "rejected"} for t in bench.trials(job_id))
    assert view(bench, job_id).best is not None
    job = bench.run(job_id)
    assert job.state == "succeeded"
    assert job.summary["wall_seconds"]["learn"] > 0
    assert [key for key in bench.executed if key in ("table", "options")] == ["table", "options"]


def run_until_queued(bench, job_id, kind):
    while True:
        with bench.database.read_session() as session:
            queued = session.exec(
                select(Step).where(Step.job_id == job_id, Step.state == "queued").order_by(Step.created_at, Step.id)
            ).all()
        if any(step.kind == kind for step in queued):
            return
        bench.execute(queued[0].id)


def test_what_only_served_the_search_ends_with_it(bench):
    job_id = bench.submit(goal={"max_drop": 0.02})
    with bench.database.write_session() as session:
        step = create_step(session, job_id=job_id, kind="explore", key="explore", queue="compute")
        step.state = "running"
        session.add(step)
        session.flush()
        explore = step.id
    run_until_queued(bench, job_id, "confirm")
    with bench.database.read_session() as session:
        assert session.get(Step, explore).state == "cancelled"


def test_the_search_stops_early_enough_for_the_trial_that_was_begun_last():
    durations = {"evaluate": [4.0], "measure": [2.0]}
    early = budget_state(600.0, None, 100.0, ["baseline"] * 3, durations)
    finish = (FINALISTS + 3) * 3.0 * 6.0 + FEW_AUDITS * AUDIT_SECONDS
    assert early.reserve == pytest.approx(finish + 6.0)
    assert not early.search_is_over
    assert budget_state(600.0, None, 600.0 - finish - 5.0, ["baseline"] * 3, durations).search_is_over
    short = budget_state(60.0, None, 3.0, ["baseline"] * 3, {"evaluate": [20.0], "measure": [10.0]})
    assert not short.search_is_over, "however long a trial takes, there is a search"


def test_a_short_job_measures_few_models_at_the_end_so_that_there_is_a_search(bench):
    bench.seconds, bench.slow_learning = 4.0, 100.0
    job_id = bench.submit(strategy="guided", goal={"max_drop": 0.02}, budget={"seconds": 300})
    job = bench.run(job_id)
    assert job.state == "succeeded", job.error
    trials = bench.trials(job_id)
    assert {trial.source for trial in trials} - {"baseline", "preset"}, "nothing was searched"
    confirmed = [trial for trial in trials if trial.final_measurement and trial.source != "baseline"]
    assert 1 <= len(confirmed) <= SHORT_FINALISTS + 2, "the best one, the dense model, and the front's"
    assert job.summary["wall_seconds"]["total"] <= 310


def test_little_time_is_not_spent_on_exploring(bench):
    job_id = bench.submit(budget={"seconds": 600}, strategy="guided")
    run_until_queued(bench, job_id, "table")
    for used, expected in ((60.0, True), (400.0, False)):
        with bench.database.write_session() as session:
            job = session.get_one(Job, job_id)
            job.active_seconds = used
            job.started_at = job.active_at = database_now(session)
            seconds = explore_seconds(session, job)
            assert (seconds >= LEAST_SECONDS) == expected
            assert seconds <= BUDGET_SHARE * 300
            session.rollback()


def test_the_final_measurements_leave_the_audits_their_time(bench):
    bench.seconds = 4.0
    job_id = bench.submit(goal={"max_drop": 0.02}, budget={"seconds": 1000})
    run_until_queued(bench, job_id, "audit")
    with bench.database.read_session() as session:
        job = session.get(Job, job_id)
        steps = session.exec(select(Step).where(Step.job_id == job_id)).all()
    (confirm,) = [step for step in steps if step.kind == "confirm"]
    audits = sum(step.kind == "audit" for step in steps)
    assert audits == FEW_AUDITS
    left = 1000 - job.active_seconds
    assert 0 < confirm.payload["max_seconds"] <= left - AUDIT_SECONDS * audits


@pytest.mark.parametrize(("late", "audits"), [(0.0, FEW_AUDITS), (40.0, 1)])
def test_a_late_finish_makes_no_further_audits_than_that_of_the_best(bench, late, audits):
    job_id = bench.submit(goal={"max_drop": 0.02}, budget={"seconds": 1000})
    run_until_queued(bench, job_id, "audit")
    with bench.database.write_session() as session:
        job = session.get_one(Job, job_id)
        confirm = session.exec(select(Step).where(Step.job_id == job_id, Step.kind == "confirm")).one()
        confirm.state = "done"  # as late as it likes
        session.add(confirm)
        in_time = 1000 * (1 - SLACK) - AUDIT_SECONDS * FEW_AUDITS
        bench.pass_time(session, job, in_time + late - job.active_seconds)
    bench.seconds = AUDIT_SECONDS / 2 - 0.5  # of an audit, and of the tick behind it
    job = bench.run(job_id)
    assert job.state == "succeeded"
    assert sum("audit" in trial.facts for trial in bench.trials(job_id)) == audits
    with bench.database.read_session() as session:
        notices = session.exec(select(Event.payload).where(Event.job_id == job_id, Event.kind == "notice")).all()
    said = [notice for notice in notices if "torch's own export" in notice["message"]]
    assert len(said) == (audits < FEW_AUDITS)


def test_a_model_whose_file_fails_the_audit_is_in_no_front(bench):
    job_id = bench.submit(goal={"max_drop": 0.02})
    run_until_queued(bench, job_id, "audit")
    with bench.database.read_session() as session:
        steps = session.exec(select(Step).where(Step.job_id == job_id, Step.kind == "audit")).all()
    trials = {t.id: t for t in bench.trials(job_id)}
    with bench.database.read_session() as session:
        (confirm,) = session.exec(select(Step).where(Step.job_id == job_id, Step.kind == "confirm")).all()
    finalists = [step.trial_id in confirm.payload["trials"] for step in steps]
    candidates = [name for name in confirm.payload["trials"] if trials[name].source != "baseline"]
    assert finalists.count(False) == 1, "a model that is no finalist"
    assert finalists.count(True) == len(candidates), "a job without a time limit has every finalist audited"
    bench.mismatches = {trials[step.trial_id].digest for step in steps}
    job = bench.run(job_id)
    assert job.state == "succeeded"
    front = view(bench, job_id)
    failed = {t.id for t in bench.trials(job_id) if t.facts.get("audit") == {"ok": False}}
    assert failed == {step.trial_id for step in steps}
    assert front.best.id not in failed
    assert not failed & {point.id for point in front.points}


def test_a_model_that_lacks_a_fused_operator_is_in_no_front(bench):
    job_id = bench.submit(goal={"max_drop": 0.02})
    bench.unfused = lambda trial: trial.number % 2 == 0  # of baselines as well: they are what they are
    job = bench.run(job_id)
    assert job.state == "succeeded"
    trials = {t.id: t for t in bench.trials(job_id) if t.measurement}
    unfused = {name for name, t in trials.items() if bench.unfused(t) and t.source != "baseline"}
    front = view(bench, job_id)
    assert unfused
    assert front.points
    assert not unfused & {point.id for point in front.points}
    assert not unfused & set(job.summary["guard"])
    assert front.best.latency.fusion_parity is True
    assert {baseline.latency.fusion_parity for baseline in front.baselines} == {True, False}
    with bench.database.read_session() as session:
        verdicts = {service.trial(session, session.get(Job, job_id), name).verdict for name in unfused}
    assert verdicts == {"the runtime fuses only 6 of 7 norms of its graph, so no comparison with it is valid"}
    assert front.reference_note is None


def test_a_reference_that_lacks_a_fused_operator_is_told_with_every_factor(bench):
    job_id = bench.submit(goal={"max_drop": 0.02})
    bench.reference_norms = 1
    job = bench.run(job_id)
    front = view(bench, job_id)
    assert front.verdict == "better_model", "the guard holds it against every baseline"
    assert "only 1 of 7 norms of the reference" in front.reference_note
    assert front.reference_note in job.summary["notes"]
    assert front.best.latency.fusion_parity is False
    assert front.best.latency.fusions.complete


def test_without_labels_divergence_is_the_objective(bench):
    bench.labelled = False
    job_id = bench.submit(goal={"max_drop": 0.02})
    job = bench.run(job_id)
    assert job.state == "succeeded"
    with bench.database.read_session() as session:
        entries = standings(bench.trials(job_id), labelled=False, final=True)
        front = service.front(session, session.get(Job, job_id))
    by_id = {entry.trial_id: entry for entry in entries}
    assert all(by_id[p.id].loss == p.quality.divergence for p in front.points)
    assert front.best.quality.drop.value <= 0.02


def test_presets_come_first_and_no_more_trials_than_allowed_are_under_way(bench):
    job_id = bench.submit()
    sources, most = [], 0
    for _ in range(60):
        with bench.database.read_session() as session:
            step = session.exec(select(Step).where(Step.state == "queued").order_by(Step.created_at)).first()
        bench.execute(step.id)
        busy = [t for t in bench.trials(job_id) if t.state in {"queued", "evaluated"} and t.source != "baseline"]
        most = max(most, len(busy))
    sources = [t.source for t in bench.trials(job_id)]
    assert most == 2
    assert sources == sorted(sources, key=["baseline", "preset", "direct"].index)
    assert Counter(sources)["preset"] >= 8


def test_ticking_twice_is_ticking_once(bench):
    job_id = bench.submit()
    for _ in range(12):
        for _ in range(3):
            with bench.database.write_session() as session:
                coordinator.tick(session, session.get(Job, job_id), bench.now)
        before = [(t.id, t.state) for t in bench.trials(job_id)]
        with bench.database.write_session() as session:
            job = session.get(Job, job_id)
            plan = coordinator.propose(session, job, bench.now)
            coordinator.commit(session, job, plan, bench.now)
            coordinator.commit(session, job, plan, bench.now)
        assert [(t.id, t.state) for t in bench.trials(job_id)] == before
        bench.run(job_id, most=5)
    with bench.database.read_session() as session:
        queued = session.exec(select(Step).where(Step.kind == "tick", Step.state == "queued")).all()
    assert len(queued) <= 1


def test_repeated_results_change_nothing(bench):
    job_id = bench.submit()
    bench.run(job_id, most=20)
    done = [t for t in bench.trials(job_id) if t.state == "complete"]
    assert done
    with bench.database.write_session() as session:
        job = session.get(Job, job_id)
        for trial in done:
            coordinator.after_evaluate(session, job, trial, bench.now)
            coordinator.after_measure(session, job, trial, bench.now)
    assert [t.state for t in bench.trials(job_id) if t.id in {d.id for d in done}] == ["complete"] * len(done)
    assert bench.run(job_id).state == "succeeded"


def test_a_stale_plan_neither_repeats_nor_exceeds(bench):
    job_id = bench.submit()
    bench.run(job_id, most=1)
    with bench.database.write_session() as session:
        job = session.get(Job, job_id)
        stale = coordinator.propose(session, job, bench.now, in_flight=8)
    bench.run(job_id, most=25)
    with bench.database.write_session() as session:
        coordinator.commit(session, session.get(Job, job_id), stale, bench.now)
    trials = bench.trials(job_id)
    assert len({t.digest for t in trials}) == len(trials)
    assert sum(t.state in {"queued", "evaluated"} and t.source != "baseline" for t in trials) <= 2


def test_time_budget_leaves_room_for_the_finish(bench):
    bench.seconds = 2.0
    job_id = bench.submit(budget={"seconds": 200})
    job = bench.run(job_id)
    assert job.state == "succeeded"
    assert (job.finished_at - job.started_at).total_seconds() <= 200
    wall = job.summary["wall_seconds"]
    assert wall["total"] == pytest.approx(wall["prepare"] + wall["learn"] + wall["search"] + wall["finalise"], abs=0.5)
    assert wall["search"] > 0.3 * 200
    assert wall["by_step"]["confirm"] > 0


def test_small_space_is_tried_completely(bench):
    job_id = bench.submit(
        space={"kinds": ["heads"], "head_step": 2}, budget={"trials": 500, "seconds": None}, strategy="direct"
    )
    job = bench.run(job_id)
    assert job.state == "succeeded"
    # Two levels in three layers; one of the eight is the dense preset.
    assert sum(t.source != "baseline" for t in bench.trials(job_id)) == 8


def test_failed_trials_do_not_stop_the_job(bench):
    job_id = bench.submit()
    bench.run(job_id, most=1)
    victims = [t for t in bench.trials(job_id) if t.source == "preset"]
    bench.fails = {t.digest for t in victims}
    job = bench.run(job_id)
    assert job.state == "succeeded"
    states = {t.digest: t for t in bench.trials(job_id)}
    for digest in bench.fails:
        assert states[digest].state == "failed"
        assert "signal 9" in states[digest].error["message"]
    assert job.summary["trials"]["failed"] == len(victims)


def test_job_fails_with_the_reason_when_the_dense_model_cannot_be_evaluated(bench):
    job_id = bench.submit()
    bench.run(job_id, most=1)
    bench.fails = {t.digest for t in bench.trials(job_id) if t.facts.get("name") == "fp32"}
    job = bench.run(job_id)
    assert job.state == "failed"
    assert job.error["message"] == "The runner was killed by signal 9."
    with bench.database.read_session() as session:
        assert not session.exec(select(Step).where(Step.state == "queued")).all()
        assert session.exec(select(Event).where(Event.kind == "error")).all()


def test_job_gives_up_when_nothing_works(bench):
    job_id = bench.submit()
    bench.run(job_id, most=1)

    class Everything:
        def __contains__(self, digest):
            return digest not in baselines

    baselines = {t.digest for t in bench.trials(job_id) if t.source == "baseline"}
    bench.fails = Everything()
    job = bench.run(job_id)
    assert job.state == "failed"
    assert "No trial succeeds" in job.error["message"]
    assert len(bench.trials(job_id)) < 20
    assert len(view(bench, job_id).baselines) == 2


def test_cancel_stops_everything_and_keeps_the_front(bench):
    job_id = bench.submit()
    bench.run(job_id, most=40)
    before = view(bench, job_id)
    assert before.points
    for _ in range(2):
        with bench.database.write_session() as session:
            service.cancel_job(session, session.get(Job, job_id))
    job = bench.run(job_id)
    assert job.state == "cancelled"
    with bench.database.read_session() as session:
        assert not session.exec(select(Step).where(Step.state == "queued")).all()
        states = session.exec(select(Event.payload).where(Event.kind == "state")).all()
        assert [payload["state"] for payload in states].count("cancelled") == 1
    after = view(bench, job_id)
    assert [p.id for p in after.points] == [p.id for p in before.points]
    assert after.status == "provisional"
    assert all(t.state not in {"queued", "evaluated"} for t in bench.trials(job_id))


def test_unreachable_latency_fails_early_and_says_what_is_possible(bench):
    job_id = bench.submit(goal={"max_latency_ms": 0.01})
    job = bench.run(job_id)
    assert job.state == "failed"
    assert job.error["code"] == "infeasible-goal"
    assert "20" in job.error["message"]
    assert len(bench.executed) < 10


def test_latency_goal_out_of_reach_fails_with_the_front_readable(bench):
    job_id = bench.submit(goal={"max_latency_ms": 1.0})  # the fixed part alone takes 2 ms
    job = bench.run(job_id)
    assert job.state == "failed"
    assert job.error["code"] == "infeasible-goal"
    front = view(bench, job_id)
    assert front.verdict == "goal_out_of_reach"
    assert front.status == "confirmed"
    assert front.best is not None


def test_trials_clearly_beyond_the_goal_are_not_measured(bench):
    job_id = bench.submit(goal={"max_drop": 0.01})
    bench.run(job_id)
    rejected = [t for t in bench.trials(job_id) if t.state == "rejected"]
    assert rejected
    for trial in rejected:
        assert trial.measurement is None
        assert trial.facts["rejected"].startswith("not measured")
        assert trial.predicted["ratio"] > 0
    assert all(truth(t)[1] <= 0.022 for t in bench.trials(job_id) if t.measurement and t.source != "baseline")


def test_overdue_trials_are_given_up(bench):
    job_id = bench.submit(budget={"seconds": 100})
    bench.run(job_id, most=30)
    assert any(t.state in {"queued", "evaluated"} for t in bench.trials(job_id))
    bench.wait(job_id, 95)
    with bench.database.write_session() as session:
        coordinator.tick(session, session.get(Job, job_id), bench.now)
    assert any(t.state == "cancelled" for t in bench.trials(job_id))
    job = bench.run(job_id)
    assert job.state == "succeeded"


def test_a_search_that_runs_out_of_recipes_says_so(bench):
    job_id = bench.submit(space={"kinds": ["depth"]}, budget={"seconds": None, "trials": 400})
    assert bench.run(job_id).state == "succeeded"
    with bench.database.read_session() as session:
        notices = session.exec(select(Event).where(Event.job_id == job_id, Event.kind == "notice")).all()
    assert coordinator.EXHAUSTED in [event.payload.get("message") for event in notices]
    full = bench.submit(budget={"seconds": None, "trials": 6})
    bench.run(full)
    with bench.database.read_session() as session:
        notices = session.exec(select(Event).where(Event.job_id == full, Event.kind == "notice")).all()
    assert coordinator.EXHAUSTED not in [event.payload.get("message") for event in notices]


def test_a_preparation_longer_than_the_budget_leaves_the_baselines_as_an_answer(bench):
    job_id = bench.submit(strategy="guided", goal={"max_drop": 0.01}, budget={"seconds": 100})
    bench.wait(job_id, 300)
    job = bench.run(job_id)
    assert job.state == "succeeded", job.error
    trials = bench.trials(job_id)
    assert {t.state for t in trials if t.source == "baseline"} == {"complete"}
    assert {t.source for t in trials} == {"baseline"}
    assert job.summary["verdict"] == "leave_it_alone"


def test_baselines_that_never_come_end_the_job(bench):
    job_id = bench.submit(strategy="guided", goal={"max_drop": 0.01}, budget={"seconds": 100})
    while not bench.trials(job_id):
        bench.run(job_id, most=1)
    for wait, state in ((300, "running"), (301, "failed")):
        bench.wait(job_id, wait)
        with bench.database.write_session() as session:
            coordinator.tick(session, session.get(Job, job_id), bench.now)
            coordinator.tick(session, session.get(Job, job_id), bench.now)
        with bench.database.read_session() as session:
            assert session.get(Job, job_id).state == state
