"""The kit that every profiler plugin must pass; it runs the plugin for real.

Call :func:`run_all_checks`, or each check from a test of its own. A failed check raises :class:`ConformanceError`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from infra.errors import InvalidInputError
from infra.errors import InvalidModelError
from profilers.measure import measure
from profilers.protocol import API_VERSION
from profilers.protocol import Feeds
from profilers.protocol import Outputs
from profilers.protocol import Profiler
from profilers.protocol import Session
from profilers.protocol import Visit
from profilers.statistics import contains_one
from profilers.statistics import half_width
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Effort
from profilers.types import Workload


class ConformanceError(AssertionError):
    """The plugin does not keep its side of the protocol."""


@dataclass(frozen=True)
class Kit:
    """A plugin and the material to test it with.

    Attributes:
        profiler: The plugin.
        device: A profile of it.
        workload: Small, so that the checks are quick.
        model: An artifact of at least a millisecond per run.
        smaller: Another one with the same inputs that takes clearly less time (at most three quarters).
        damaged: A truncated file of the same format.
        feeds: Inputs at the workload's shape.
        other_feeds: Inputs at another batch and length.
        expected: Computes the outputs of ``model`` independently of the plugin.
        tolerance: Largest absolute difference to ``expected``.
        seconds: Time limit of each measurement.
    """

    profiler: Profiler
    device: DeviceProfile
    workload: Workload
    model: Artifact
    smaller: Artifact
    damaged: Artifact
    feeds: Feeds
    other_feeds: Feeds
    expected: Callable[[Feeds], Outputs]
    tolerance: float = 1e-3
    seconds: float = 10.0

    def open(self) -> Session:
        """Open a session with the kit's feeds."""
        return self.profiler.open(self.device, self.workload, feeds=self.feeds)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConformanceError(message)


def check_description(kit: Kit) -> None:
    """The description names the plugin, and an unavailable one says why."""
    capabilities = kit.profiler.describe()
    _require(kit.profiler.api_version == API_VERSION, "api_version is not the protocol's")
    _require(capabilities.profiler == kit.device.profiler, "describe() names another profiler")
    _require(capabilities.available or bool(capabilities.reason), "unavailable without a reason")
    _require(kit.model.format in capabilities.formats, "the kit's model is not in a declared format")


def check_run_equals_reference(kit: Kit) -> None:
    """``run`` gives the expected outputs, at the workload's shape and, loaded freely, at another."""
    with kit.open() as session:
        for static, feeds in ((True, kit.feeds), (False, kit.feeds), (False, kit.other_feeds)):
            outputs = session.load(kit.model, static=static).run(feeds)
            for name, value in kit.expected(feeds).items():
                _require(name in outputs, f"output {name!r} is missing")
                _require(outputs[name].shape == value.shape, f"output {name!r} has shape {outputs[name].shape}")
                error = float(np.abs(outputs[name] - value).max())
                _require(error <= kit.tolerance, f"output {name!r} is off by {error}")


def check_determinism(kit: Kit) -> None:
    """The same inputs give the same bits: twice in a row, after timing, and from a second load."""
    with kit.open() as session:
        handle, again = session.load(kit.model), session.load(kit.model)
        first = handle.run(kit.feeds)
        session.sample([Visit(handle, 2), Visit(again, 1)])
        for other in (handle.run(kit.feeds), again.run(kit.feeds)):
            for name, value in first.items():
                _require(np.array_equal(value, other[name]), f"output {name!r} changed between runs")


def check_bad_input(kit: Kit) -> None:
    """A damaged or missing file and missing inputs give our errors, and the session goes on."""
    with kit.open() as session:
        missing = kit.model.model_copy(update={"path": kit.model.path.with_name("missing" + kit.model.path.suffix)})
        for artifact in (kit.damaged, missing):
            try:
                session.load(artifact)
            except InvalidModelError:
                continue
            raise ConformanceError(f"{artifact.path.name} was loaded")
        handle = session.load(kit.model)
        try:
            handle.run({})
        except InvalidInputError:
            handle.run(kit.feeds)
            return
        raise ConformanceError("run() accepted missing inputs")


def check_samples(kit: Kit) -> None:
    """``sample`` keeps the plan's order, times every run, and leaves out the lead-in."""
    with kit.open() as session:
        large, small = session.load(kit.model), session.load(kit.smaller)
        session.sample([Visit(large, 5), Visit(small, 5)])
        blocks = [session.sample([Visit(large, 3), Visit(small, 3), Visit(large, 1, lead_in=2)]) for _ in range(9)]
        times = np.min([block.elapsed_ns for block in blocks], axis=0)  # others on the machine only make it slower
        _require(all(len(block.elapsed_ns) == 3 for block in blocks), "not one sample for each visit")
        _require(bool((times > 0).all()), "times must be positive")
        _require(float(times[1]) < float(times[0]), "the smaller model is not faster: samples out of order?")
        _require(float(times[2]) < 0.7 * float(times[0]), "the lead-in was timed")
        _require(bool(session.facts()), "no facts")
        session.health()


def check_equal_models_measure_equal(kit: Kit) -> None:
    """Two loads of one file have the ratio 1, and the control contains 1, or the run says ``noisy``."""
    with kit.open() as session:
        effort = Effort(half_width=0.05, seconds=kit.seconds, retreats=0)
        result = measure(session, session.load(kit.model), {"copy": session.load(kit.model)}, effort)["copy"]
        measurement = result.measurement
        _require(len(result.samples.candidate_ns) >= measurement.blocks > 0, "samples lost")
        if measurement.status == "ok":
            _require(contains_one(measurement.control_ratio), f"the control is {measurement.control_ratio}")
            _require(half_width(measurement.ratio) <= effort.half_width, "ok, but not as precise as asked for")
            _require(0.85 < measurement.ratio.value < 1.15, f"a copy of the reference has {measurement.ratio}")


def check_faster_model_measures_faster(kit: Kit) -> None:
    """The smaller model's interval lies below 1, or the run says ``noisy``; a ceiling below it ends the race early."""
    with kit.open() as session:
        reference, smaller = session.load(kit.model), session.load(kit.smaller)
        effort = Effort(half_width=0.05, seconds=kit.seconds, retreats=0)
        found = measure(session, reference, {"smaller": smaller}, effort)["smaller"].measurement
        _require(found.status == "noisy" or found.ratio.high < 1.0, f"the smaller model has {found.ratio}")
        hopeless = effort.model_copy(update={"half_width": 1e-6, "give_up_above": found.ratio.value / 10})
        ended = measure(session, reference, {"smaller": smaller}, hopeless)["smaller"].measurement
        _require(ended.status in ("slower_than_front", "noisy"), f"give_up_above was ignored: {ended.status}")


CHECKS: tuple[Callable[[Kit], None], ...] = (
    check_description,
    check_run_equals_reference,
    check_determinism,
    check_bad_input,
    check_samples,
    check_equal_models_measure_equal,
    check_faster_model_measures_faster,
)


def run_all_checks(kit: Kit) -> None:
    """Run every check.

    Raises:
        ConformanceError: The first check that failed.
    """
    for check in CHECKS:
        check(kit)
