"""Tails and means over runs: against distributions whose ratios are known, and through the whole protocol."""

import numpy as np
import pytest

from profilers.measure import measure
from profilers.pooled import level
from profilers.pooled import pooled_ratio
from profilers.samples import PairedSamples
from profilers.statistics import contains_one
from profilers.statistics import half_width
from profilers.types import Effort
from profilers.types import statistic_of
from tests.unit.profilers.simulation import SimulatedModel
from tests.unit.profilers.simulation import SimulatedSession

TAILED = ("p90", "p99", "mean")


@pytest.mark.parametrize("statistic", TAILED)
def test_the_interval_covers_a_known_ratio_as_often_as_it_says(statistic):
    """Lognormal times, 0.8 of the reference's, with a disturbance that all runs of a block share."""
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shared = np.exp(rng.normal(0, 0.1, (30, 1)))
        reference = shared * rng.lognormal(0, 0.15, (30, 20))
        candidate = 0.8 * shared * rng.lognormal(0, 0.15, (30, 20))
        found = pooled_ratio(candidate, reference, statistic, seed)
        assert found.low <= found.value <= found.high
        covered += found.low <= 0.8 <= found.high
    assert covered >= 0.88 * 60


def test_a_shared_disturbance_cancels():
    rng = np.random.default_rng(0)
    noise = rng.lognormal(0, 0.02, (2, 40, 8))
    shared = 1 + 0.5 * (1 + np.sin(np.arange(40) / 4))[:, None]
    quiet, disturbed = (pooled_ratio(0.5 * f * noise[0], f * noise[1], "mean") for f in (1.0, shared))
    assert half_width(disturbed) < 3 * half_width(quiet)
    assert disturbed.low <= 0.5 <= disturbed.high


def test_levels_are_those_of_numpy():
    times = np.random.default_rng(1).lognormal(0, 1, (7, 5))
    assert level(times, "p99") == np.quantile(times, 0.99)
    assert level(times, "mean") == np.mean(times)


def test_one_block_has_no_interval():
    with pytest.raises(ValueError, match="two blocks"):
        pooled_ratio(np.ones((1, 4)), np.ones((1, 4)), "p90")


@pytest.mark.parametrize(
    ("objective", "truth"), [("p50", 0.5), ("p90", 0.5), ("p99", 2.0), ("throughput", 0.5 * (1 + 0.05 * 3))]
)
def test_every_objective_finds_its_own_truth(objective, truth):
    """Every twentieth run of the candidate takes four times as long: p50 and p90 do not know, p99 and mean do."""
    candidate = SimulatedModel(15.0, slow_share=0.05, slow_factor=4.0)
    effort = Effort(half_width=0.02, seconds=5, min_blocks=40).by(statistic_of(objective))
    found = measure(SimulatedSession(noise=0.01, drift=0.1), SimulatedModel(30.0), {"c": candidate}, effort)["c"]
    measured = found.measurement
    assert measured.objective == objective
    assert measured.status == "ok"
    assert measured.ratio.value == pytest.approx(truth, rel=0.06)
    assert measured.ratio.low * 0.99 <= truth <= measured.ratio.high * 1.01
    assert contains_one(measured.control_ratio)
    assert measured.latency_ms / measured.reference_ms == pytest.approx(truth, rel=0.08)


def test_tails_are_taken_of_single_runs_and_can_be_recomputed():
    plans = []

    class Recording(SimulatedSession):
        def sample(self, plan):
            plans.append(plan)
            return super().sample(plan)

    effort = Effort(half_width=0.05, seconds=5).by("p99")
    found = measure(Recording(), SimulatedModel(10.0), {"c": SimulatedModel(2.0)}, effort)["c"]
    assert {visit.runs for visit in plans[-1]} == {1}
    assert (
        sum(visit.lead_in > 0 for visit in plans[-1]) == len({id(visit.handle) for visit in plans[-1]}) + 1
    )  # control
    samples = PairedSamples.from_npz(found.samples.to_npz())
    assert samples.candidate_visits_ns.shape == (len(samples.clean), 20)
    again = pooled_ratio(samples.candidate_visits_ns, samples.reference_visits_ns, "p99")
    assert again.value == found.measurement.ratio.value


def test_samples_of_processes_with_different_visits_are_joined():
    parts = []
    for milliseconds in (2.0, 60.0):
        model = {"c": SimulatedModel(milliseconds)}
        parts.append(measure(SimulatedSession(), SimulatedModel(10.0), model, Effort().by("p90"))["c"].samples)
    joined = PairedSamples.concatenate(parts)
    assert joined.candidate_visits_ns.shape == (len(joined.clean), 8)
    assert np.isnan(joined.candidate_visits_ns[-1]).sum() == 6  # 150 ms hold two of its runs
    assert not np.isnan(joined.reference_visits_ns).any()
