import json
import os

import numpy as np
import pytest

from infra.errors import InvalidInputError
from profilers.blocks import burst_runs
from profilers.blocks import is_clean
from profilers.blocks import lead_in_runs
from profilers.counters import SchedulerProbe
from profilers.counters import parse_steal_ticks
from profilers.host import hardware_fingerprint
from profilers.host import machine_facts
from profilers.isa import parse_cpuinfo
from profilers.isolation import Isolation
from profilers.protocol import BlockSamples
from profilers.types import Workload

CPUINFO = """processor\t: 0
vendor_id\t: {vendor}
model name\t: Some CPU
flags\t\t: fpu avx2 {flags}

processor\t: 1
vendor_id\t: other
model name\t: Another
flags\t\t: amx_bf16
"""


@pytest.mark.parametrize(
    ("vendor", "flags", "bf16", "int8"),
    [
        ("GenuineIntel", "avx512f amx_tile amx_int8 amx_bf16 avx512_bf16 avx512_vnni", True, True),
        ("GenuineIntel", "avx512f avx512_bf16 avx512_vnni", False, True),
        ("AuthenticAMD", "avx512f avx512_bf16", True, False),
        ("GenuineIntel", "avx_vnni", False, True),
        ("GenuineIntel", "", False, False),
    ],
)
def test_bf16_and_int8_are_offered_where_they_pay(vendor, flags, bf16, int8):
    cpu = parse_cpuinfo(CPUINFO.format(vendor=vendor, flags=flags))
    assert (cpu.fast_bf16, cpu.fast_int8) == (bf16, int8)
    assert cpu.model == "Some CPU"
    assert "fpu" not in cpu.flags


def test_arm_features_are_read():
    cpu = parse_cpuinfo("processor : 0\nFeatures : fp asimd asimddp i8mm\nCPU part : 0xd40\n")
    assert cpu.fast_int8
    assert cpu.model == "0xd40"


STAT = "cpu  9 0 9 9 9 0 0 12 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu1 1 2 3 4 5 6 7 4 0 0\nintr 99 1\n"


@pytest.mark.parametrize(("cpus", "ticks"), [({0}, 8), ({1}, 4), ({0, 1}, 12), ({7}, 0)])
def test_steal_is_summed_over_our_cores(cpus, ticks):
    assert parse_steal_ticks(STAT, frozenset(cpus)) == ticks


@pytest.mark.parametrize("all_threads", [False, True])
def test_counters_never_fall(all_threads):
    with SchedulerProbe(all_threads=all_threads) as probe:
        before = probe.read()
        sum(range(200_000))
        after = probe.read()
    assert after.waited_ns >= before.waited_ns
    assert after.preempted >= before.preempted


def samples(elapsed_ms=(30.0, 10.0), waited_ms=(0.0, 0.0), preempted=(0, 0), stolen_ms=0.0, disturbed=False):
    elapsed = (np.array(elapsed_ms) * 1e6).astype(np.int64)
    waited = (np.array(waited_ms) * 1e6).astype(np.int64)
    return BlockSamples(elapsed, elapsed, waited, np.array(preempted), int(stolen_ms * 1e6), disturbed)


@pytest.mark.parametrize(
    ("block", "clean"),
    [
        (samples(), True),
        (samples(waited_ms=(0.4, 0.3)), True),
        (samples(waited_ms=(0.4, 0.5)), False),
        (samples(stolen_ms=10), False),
        (samples(waited_ms=(0.4, 0.0), stolen_ms=0.5), False),
        (samples(preempted=(0, 1)), False),
        (samples(preempted=(1, 0)), True),  # a long visit is not spoiled by one switch
        (samples(disturbed=True), False),
    ],
)
def test_clean_block_rule(block, clean):
    assert is_clean(block) is clean


def test_bursts_are_long_enough_and_bounded():
    for median in (1.0, 1e3, 7e5, 4e6, 3e8):
        assert burst_runs(median) == 10_000 or burst_runs(median) * median >= 5e6
        assert 1 <= lead_in_runs(median) <= 10
    assert burst_runs(3e8) == lead_in_runs(3e8) == 1


def test_isolation_is_undone():
    before = os.sched_getaffinity(0), os.sched_getscheduler(0)
    core = min(before[0])
    isolation = Isolation(Workload(), {"affinity": [core], "realtime_priority": 5})
    assert os.sched_getaffinity(0) == {core}
    assert isolation.facts()["affinity"] == [core]
    isolation.release()
    isolation.release()
    assert (os.sched_getaffinity(0), os.sched_getscheduler(0)) == before


def test_unpinned_isolation_touches_nothing():
    before = os.sched_getaffinity(0)
    Isolation(Workload(), {}, pinned=False)
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    "options",
    [{"affinity": []}, {"affinity": ["1"]}, {"affinity": 1}, {"affinity": [4096]}, {"realtime_priority": 0}],
    ids=str,
)
def test_wrong_options_are_refused_and_leave_no_trace(options):
    before = os.sched_getaffinity(0)
    with pytest.raises(InvalidInputError):
        Isolation(Workload(), options)
    assert os.sched_getaffinity(0) == before


def test_facts_are_json_and_name_the_machine():
    facts = json.loads(json.dumps(machine_facts()))
    assert facts["fingerprint"] == hardware_fingerprint()
    assert len(facts["fingerprint"]) == 16
    assert facts["versions"]["numpy"] == np.__version__
