"""What is computed once for a job, and what is found wrong on the way."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from compressors.anatomy import load_network
from compressors.calibration import Calibration
from compressors.calibration.statistics import InputStatistics
from compressors.torch_module import to_module
from infra.errors import InvalidDatasetError
from profilers.quality.encode import TextEncoder
from profilers.quality.examples import read_examples
from profilers.types import DeviceProfile
from profilers.types import Workload
from search.requests import Columns
from tests.helpers.tiny_models import make_dataset
from tests.helpers.tiny_models import make_tiny_model
from workers.operations.data import load_dense_outputs
from workers.operations.enough_text import calibration_notice
from workers.operations.inputs import DataFile
from workers.operations.inputs import JobInputs
from workers.operations.prepare import prepare
from workers.runner.operation import OperationContext


def job(folder: Path, model: Path, data: Path, **columns: str) -> JobInputs:
    folder.mkdir(exist_ok=True)
    return JobInputs(
        work=folder,
        model=model,
        dataset=DataFile(path=data, format="jsonl"),
        task="sequence-classification",
        columns=Columns(**columns),
        workload=Workload(batch=1, sequence_length=32),
        device=DeviceProfile(name="local-cpu", profiler="onnxruntime"),
    )


def run(inputs: JobInputs) -> dict[str, object]:
    return prepare(inputs.model_dump(mode="json"), OperationContext("compute", inputs.work, lambda _: None))


def label_by_the_model(model: Path, data: Path, labels: list[int | str]) -> None:
    """Give every text the label that stands for the class that the dense model predicts."""
    examples = read_examples(data)
    encoded = TextEncoder(model, 32).encode(examples)
    module = to_module(load_network(model, "sequence-classification"))
    rows = []
    for index, text in enumerate(examples.texts):
        feeds = {name: torch.from_numpy(array) for name, array in encoded.batch([index]).items()}
        rows.append(json.dumps({"text": text, "label": labels[int(module(**feeds).argmax())]}))
    data.write_text("\n".join(rows))


def test_labels_in_another_order_than_the_models_classes_end_the_job(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", labels=3)
    data = make_dataset(tmp_path / "data.jsonl", rows=200, labelled=False)
    label_by_the_model(model, data, [1, 2, 0])
    with pytest.raises(InvalidDatasetError, match="The labels do not fit the model") as refusal:
        run(job(tmp_path / "numbers", model, data))
    assert "LABEL_0" in refusal.value.message
    assert all("predicted" in line["message"] for line in refusal.value.errors)
    label_by_the_model(model, data, ["LABEL_0", "LABEL_1", "LABEL_2"])
    found = run(job(tmp_path / "names", model, data))
    assert found["dense"] == {"search": 1.0, "holdout": 1.0}
    assert found["label_notice"] is None


def test_pairs_for_a_model_that_does_not_tell_them_apart(tmp_path: Path) -> None:
    """RoBERTa's weights with a tokenizer that numbers the texts of a pair, as BERT's does."""
    model = make_tiny_model(tmp_path / "model", "roberta")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokens = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    data = make_dataset(tmp_path / "data.jsonl", rows=60)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    data.write_text("\n".join(json.dumps(row | {"other": f"{row['text']} it was"}) for row in rows))
    outputs = []
    for number in (0, 1):
        pair = f"<s> $A </s> $B:{number} </s>:{number}"
        tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", pair=pair, special_tokens=tokens)
        tokenizer.save(str(model / "tokenizer.json"))
        inputs = job(tmp_path / str(number), model, data, second_text_column="other")
        run(inputs)
        outputs.append(load_dense_outputs(inputs)["search"])
    np.testing.assert_array_equal(*outputs)


def test_too_little_text_for_calibration_is_said_with_how_much_would_do(tmp_path: Path) -> None:
    """A fourth of the texts is for calibration, and two thirds of that for the statistics."""
    model = make_tiny_model(tmp_path / "model", intermediate_size=512)
    few = job(tmp_path / "few", model, make_dataset(tmp_path / "few.jsonl", rows=40))
    notice = run(few)["calibration_notice"]
    assert "512 channels" in notice
    enough = int(re.search(r"with about (\d+) texts", notice).group(1))
    for rows, expected in ((enough // 2, True), (round(1.2 * enough), False)):
        text = make_dataset(tmp_path / f"text{rows}.jsonl", rows=rows, seed=rows)
        work = tmp_path / f"own{rows}"
        own = job(work, model, few.dataset.path).model_copy(update={"calibration": DataFile(path=text, format="jsonl")})
        found = run(own)["calibration_notice"]
        assert (found is not None) == expected
        if expected:
            assert "more texts like these" in found


def test_as_many_texts_are_asked_for_as_leave_enough_for_the_statistics() -> None:
    """Ten tokens a text: 308 texts, and 128 that options are scored on; more than 512 are not read."""
    statistics = InputStatistics(torch.eye(3072), torch.zeros(3072), 300, torch.zeros(3072), torch.zeros(3072))
    calibration = Calibration({(0, "feed_forward_mid"): statistics}, 300, {})
    assert "About 391 more texts" in str(calibration_notice(calibration, 30, 45, separate=True))
    assert "about 436 texts" in str(calibration_notice(calibration, 30, 45, separate=False))
    assert "Longer texts" in str(calibration_notice(replace(calibration, tokens=2000), 512, 640, separate=True))
    assert calibration_notice(replace(calibration, tokens=3072), 512, 640, separate=True) is None
