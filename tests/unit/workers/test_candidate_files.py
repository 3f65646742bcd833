"""Files of candidates on a host: bounded, and built again when they are needed."""

import errno
import os
import time
from pathlib import Path

import pytest

from compressors.recipe import BaselineCandidate
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from profilers.types import Artifact
from search.budget import FINALISTS
from tests.unit.workers.test_bench import context
from tests.unit.workers.test_bench import make_bench
from workers.operations import artifacts
from workers.operations.artifacts import find_artifact
from workers.operations.artifacts import make_room
from workers.operations.bench import Bench
from workers.operations.build import build_artifact
from workers.operations.confirm import confirm
from workers.operations.prepare import prepare
from workers.stages.measure import fusions_of


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    work = make_bench(tmp_path_factory.mktemp("job"))
    prepare(work.inputs.model_dump(mode="json"), context(work))
    return work


def candidate(work: Bench, width: int) -> RecipeCandidate:
    layer = LayerRecipe(feed_forward=FeedForwardRecipe(intermediate_size=width))
    return RecipeCandidate(recipe=Recipe(layers=(layer,) * len(work.network.layers)))


def build(work: Bench, width: int) -> Artifact:
    artifact, _ = build_artifact(work.inputs, candidate(work, width), context(work))
    return artifact


def kept(work: Bench) -> set[str]:
    return {path.name for path in work.inputs.artifacts.glob("*.onnx")}


def test_what_was_not_used_for_the_longest_time_goes_and_is_built_again(
    work: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "LEAST_KEPT", 2)
    monkeypatch.setattr(artifacts, "MOST_BYTES", 0)
    baseline, _ = build_artifact(work.inputs, BaselineCandidate(name="fp32"), context(work))
    built = {width: build(work, width) for width in (8, 16)}
    content = built[16].path.read_bytes()
    time.sleep(0.02)  # file systems know times by the tick
    assert find_artifact(work.inputs, candidate(work, 8)) == built[8], "used again, after 16 was built"
    built |= {width: build(work, width) for width in (24, 32)}
    assert kept(work) == {built[width].path.name for width in (8, 24, 32)}, "one more than stays, until the next"
    assert find_artifact(work.inputs, candidate(work, 16)) is None
    assert build(work, 16) == built[16]
    assert built[16].path.read_bytes() == content
    assert baseline.path.exists(), "baselines stay"


def test_many_small_candidates_stay_within_the_bytes_but_for_a_full_disk(
    work: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "LEAST_KEPT", 1)
    for width in (8, 16, 24):
        build(work, width)
    make_room(work.inputs)
    assert len(kept(work)) >= 3
    abandoned = work.inputs.artifacts / "killed.partial"
    abandoned.write_bytes(b"x")
    make_room(work.inputs)
    assert abandoned.exists(), "perhaps somebody writes to it"
    os.utime(abandoned, (0, 0))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("workers.operations.forms.write_network", full)
        with pytest.raises(OSError, match="No space"):
            build(work, 40)
    assert len(kept(work)) == 1
    assert not abandoned.exists()


def test_all_finalists_stay_while_one_is_built_after_the_other() -> None:
    assert artifacts.LEAST_KEPT > FINALISTS + 1


def test_final_samples_of_candidates_that_share_a_file_are_kept_apart(work: Bench) -> None:
    """``fp32`` and ``openvino_bf16`` are the same file in another arithmetic."""
    fp32 = BaselineCandidate(name="fp32")
    baseline, _ = build_artifact(work.inputs, fp32, context(work))
    expected = fusions_of({"anatomy": work.anatomy.model_dump()}, fp32.model_dump())
    found = confirm(
        {
            "inputs": work.inputs.model_dump(mode="json"),
            "anatomy": work.anatomy.model_dump(mode="json"),
            "finalists": {name: baseline.model_dump(mode="json") for name in ("first", "second")},
            "expected_fusions": dict.fromkeys(("first", "second"), expected),
            "max_seconds": None,
            "process_seconds": 0.5,
        },
        context(work),
    )["results"]
    for result in found.values():
        counted = result["measurement"]["fusions"]
        assert counted["found"] == counted["reference_found"] == expected["model"]
        assert result["measurement"]["fusion_parity"] is True
    first, second = (Path(found[name]["samples"]).read_bytes() for name in ("first", "second"))
    assert first != second
