"""The protocol on a device whose true ratios are known."""

import math
import time

import numpy as np
import pytest

from infra.errors import InvalidInputError
from profilers.measure import measure
from profilers.results import reference_drift
from profilers.samples import PairedSamples
from profilers.statistics import contains_one
from profilers.statistics import half_width
from profilers.types import Effort
from tests.unit.profilers.simulation import SimulatedModel
from tests.unit.profilers.simulation import SimulatedSession


def race(session, milliseconds, effort, seed=0, **options):
    reference = SimulatedModel(30.0)
    models = {name: SimulatedModel(value) for name, value in milliseconds.items()}
    return measure(session, reference, models, effort, seed, **options), reference, models


def test_ratio_survives_a_drift_that_milliseconds_do_not():
    result, _, _ = race(SimulatedSession(noise=0.02, drift=0.5), {"half": 15.0}, Effort(half_width=0.005))
    found = result["half"].measurement
    assert found.status == "ok"
    assert found.ratio.low <= 0.5 <= found.ratio.high
    assert half_width(found.ratio) <= 0.005
    assert contains_one(found.control_ratio)
    assert found.reference_ms > 31  # the drift is in here
    assert any("drifted" in note for note in found.facts["notes"])
    assert found.speedup == pytest.approx(2, rel=0.02)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    covered = 0
    for seed in range(40):
        session = SimulatedSession(noise=0.03, drift=0.2, seed=seed)
        result, _, _ = race(session, {"c": 24.0}, Effort(half_width=0.02, seconds=5), seed)
        ratio = result["c"].measurement.ratio
        covered += ratio.low <= 0.8 <= ratio.high
    assert covered >= 0.88 * 40


def test_each_candidate_leaves_the_race_when_it_is_decided():
    session = SimulatedSession(noise=0.02)
    effort = Effort(half_width=0.005, seconds=60)
    result, _, models = race(session, {"slow": 27.0, "fast": 9.0}, effort, give_up_above={"slow": 0.5})
    assert result["slow"].measurement.status == "slower_than_front"
    assert result["fast"].measurement.status == "ok"
    assert models["slow"].visits < models["fast"].visits / 3
    assert result["slow"].measurement.ratio.low > 0.5


def test_a_candidate_below_the_ceiling_is_not_given_up():
    result, _, _ = race(SimulatedSession(), {"c": 15.0}, Effort.search(give_up_above=0.6))
    assert result["c"].measurement.status == "ok"


def test_dirty_blocks_are_dropped_whole_and_do_not_bias():
    session = SimulatedSession(noise=0.01, dirty_share=0.1)
    result, _, _ = race(session, {"c": 15.0}, Effort.shortlist())
    found = result["c"].measurement
    assert found.status == "ok"
    assert found.dropped_blocks > 0
    assert found.ratio.low <= 0.5 <= found.ratio.high
    samples = result["c"].samples
    assert len(samples.clean) == found.blocks + found.dropped_blocks
    assert samples.clean.sum() == found.blocks
    assert (samples.lost_ns[samples.clean] == 0).all()


def test_a_machine_that_is_never_quiet_ends_noisy_in_time(monkeypatch):
    naps = []
    monkeypatch.setattr(time, "sleep", naps.append)
    session = SimulatedSession(dirty_share=1.0)
    started = time.monotonic()
    result, _, _ = race(session, {"c": 15.0}, Effort(seconds=200.0, retreats=3))
    found = result["c"].measurement
    assert time.monotonic() - started < 5
    assert found.status == "noisy"
    assert len(naps) == 3
    assert naps == sorted(naps)
    assert sum(naps) < 200
    assert any("all blocks were used" in note for note in found.facts["notes"])


def test_the_time_limit_ends_a_race_that_cannot_become_precise():
    started = time.monotonic()
    result, _, _ = race(SimulatedSession(noise=0.3), {"c": 15.0}, Effort(half_width=1e-5, seconds=0.5))
    assert time.monotonic() - started < 2
    assert result["c"].measurement.status == "noisy"
    assert half_width(result["c"].measurement.ratio) > 1e-5


def test_a_control_that_fails_makes_everything_noisy():
    """Whichever run of the reference comes second in a block is slower: its two runs are 10 % apart, either way."""

    class Biased(SimulatedSession):
        def sample(self, plan):
            samples = super().sample(plan)
            seen = set()
            for index, visit in enumerate(plan):
                if id(visit.handle) in seen:
                    samples.elapsed_ns[index] = int(samples.elapsed_ns[index] * 1.1)
                seen.add(id(visit.handle))
            return samples

    session = Biased(noise=0.001)
    result, _, _ = race(session, {"c": 15.0}, Effort(half_width=0.01, seconds=0.3))
    found = result["c"].measurement
    assert found.status == "noisy"
    control = found.control_ratio
    assert half_width(control) > 0.01 or not control.low <= 1.0 <= control.high
    assert half_width(found.ratio) <= 0.01  # the candidate alone would have looked fine


def test_order_is_random_and_repeatable():
    first, again, other = SimulatedSession(), SimulatedSession(), SimulatedSession()
    for session, seed in ((first, 1), (again, 1), (other, 2)):
        race(session, {"a": 15.0, "b": 20.0}, Effort.search(), seed)
    patterns = []
    for session in (first, again, other):
        names = {}
        patterns.append([[names.setdefault(item, len(names)) for item in order] for order in session.orders])
    assert patterns[0] == patterns[1]
    assert patterns[0] != patterns[2]
    blocks = [order for order in patterns[0] if set(order) == {0, 1, 2}]
    positions = np.array([order.index(1) for order in blocks])
    assert len(set(positions)) >= 3


def test_samples_allow_recomputing_the_ratio():
    result, _, _ = race(SimulatedSession(noise=0.01), {"c": 15.0}, Effort(half_width=0.01, control_every=3))
    stored = PairedSamples.from_npz(result["c"].samples.to_npz())
    logs = np.log(stored.reference_ns)
    has_control = ~np.isnan(stored.control_ns)
    assert has_control.any()
    assert not has_control.all()
    logs[has_control] = (logs[has_control] + np.log(stored.control_ns[has_control])) / 2
    ratio = math.exp(np.median((np.log(stored.candidate_ns) - logs)[stored.clean]))
    assert ratio == pytest.approx(result["c"].measurement.ratio.value, rel=1e-12)


def test_short_models_run_in_bursts_with_a_lead_in():
    plans = []

    class Recording(SimulatedSession):
        def sample(self, plan):
            plans.append(plan)
            return super().sample(plan)

    result, _, models = race(Recording(), {"tiny": 0.5}, Effort.search())
    block = plans[-1]
    visit = next(visit for visit in block if visit.handle is models["tiny"])
    assert visit.runs * 0.5 >= 5
    assert visit.lead_in >= 1
    assert result["tiny"].measurement.latency_ms == pytest.approx(0.5, rel=0.1)


def test_nothing_to_measure_is_an_error():
    with pytest.raises(InvalidInputError, match="nothing to measure"):
        race(SimulatedSession(), {}, Effort.search())


def test_no_drift_on_a_steady_machine():
    result, _, _ = race(SimulatedSession(noise=0.001), {"c": 15.0}, Effort.search())
    assert result["c"].measurement.facts["reference_drift"] < 0.01
    assert reference_drift([]) == 0.0


def test_what_holds_for_one_model_only_is_kept_with_its_measurement():
    result, _, models = race(SimulatedSession(noise=0.001), {"a": 15.0, "b": 5.0}, Effort.search())
    for name in ("a", "b"):
        found = result[name].measurement.facts["models"]
        assert found["candidate"] == {"milliseconds": models[name].milliseconds}
        assert found["reference"] not in ({"milliseconds": 15.0}, {"milliseconds": 5.0})
