"""Which texts are for what, also where there are few."""

from pathlib import Path

import pytest

from compressors.anatomy import describe
from compressors.anatomy import load_network
from profilers.quality.encode import EncodedTexts
from profilers.quality.examples import Examples
from profilers.types import DeviceProfile
from profilers.types import Workload
from search.requests import Columns
from tests.helpers.tiny_models import make_dataset
from tests.helpers.tiny_models import make_tiny_model
from workers.operations.data import CALIBRATION_EXAMPLES
from workers.operations.data import SCORING_EXAMPLES
from workers.operations.data import JobData
from workers.operations.data import divide
from workers.operations.inputs import DataFile
from workers.operations.inputs import JobInputs


@pytest.mark.parametrize(
    ("available", "statistics", "scoring"),
    [
        *((2, 1, 1), (3, 2, 1), (12, 8, 4), (50, 33, 17), (225, 150, 75), (512, 384, 128), (640, 512, 128)),
        *((1000, 512, 488), (9000, CALIBRATION_EXAMPLES, SCORING_EXAMPLES)),
    ],
)
def test_calibration_texts_are_for_statistics_or_for_scoring(available: int, statistics: int, scoring: int) -> None:
    texts = Examples(tuple(str(number) for number in range(available)))
    first, second = divide(texts)
    assert (len(first), len(second)) == (statistics, scoring)
    assert not set(first.texts) & set(second.texts)
    assert len(set(second.texts)) == scoring


def test_a_single_text_is_for_both() -> None:
    first, second = divide(Examples(("only",)))
    assert first.texts == second.texts == ("only",)


def rows(texts: EncodedTexts) -> set[tuple[int, ...]]:
    return {tuple(ids.tolist()) for ids in texts.input_ids}


@pytest.mark.parametrize("count", [50, 200, 900])
@pytest.mark.parametrize("separate", [False, True])
def test_options_are_scored_on_no_text_of_the_evaluation(tmp_path: Path, count: int, separate: bool) -> None:
    model = make_tiny_model(tmp_path / "model")
    calibration = make_dataset(tmp_path / "calibration.jsonl", rows=count // 4, seed=1)
    inputs = JobInputs(
        work=tmp_path,
        model=model,
        dataset=DataFile(path=make_dataset(tmp_path / "data.jsonl", rows=count), format="jsonl"),
        calibration=DataFile(path=calibration, format="jsonl") if separate else None,
        task="sequence-classification",
        columns=Columns(),
        workload=Workload(batch=1, sequence_length=64),
        device=DeviceProfile(name="local-cpu", profiler="onnxruntime"),
    )
    data = JobData.load(inputs, describe(load_network(model, inputs.task)))
    scored = rows(data.scoring)
    assert scored
    for name in ("search", "holdout", "calibration"):
        assert not scored & rows(data.texts[name]), name
    assert len(data.texts["calibration"]) >= 1.5 * len(data.scoring)
