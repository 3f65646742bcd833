"""Labels that do not mean what the model's classes mean are refused; weak models and few examples are not."""

import numpy as np
import pytest

from infra.errors import InvalidDatasetError
from profilers.quality.label_fit import check_labels

NAMES = ("entailment", "neutral", "contradiction")


def draw(examples, accuracy, shares=(1 / 3, 1 / 3, 1 / 3), seed=0, read_as=None):
    """Predictions of a model of some accuracy, and labels, which may be in another order; half of them on each part."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(len(shares), examples, p=shares)
    wrong = (truth + generator.integers(1, len(shares), examples)) % len(shares)
    predicted = np.where(generator.random(examples) < accuracy, truth, wrong)
    labels = truth if read_as is None else np.asarray(read_as)[truth]
    half = examples // 2
    return tuple({"search": column[:half], "holdout": column[half:]} for column in (predicted, labels))


@pytest.mark.parametrize("read_as", [(1, 2, 0), (2, 1, 0)], ids=["all classes", "two of three"])
@pytest.mark.parametrize("examples", [200, 4000])
def test_classes_in_another_order_are_refused_and_the_order_is_named(read_as, examples):
    predicted, labels = draw(examples, 0.85, read_as=read_as)
    with pytest.raises(InvalidDatasetError) as refusal:
        check_labels(predicted, labels, NAMES)
    assert f"{read_as[0]} as 'entailment'" in refusal.value.message
    assert "1: neutral" in refusal.value.hint
    table = {line["field"]: line["message"] for line in refusal.value.errors}
    assert table[f"label {read_as[0]} ({NAMES[read_as[0]]})"].split(", ")[0].endswith("x entailment")


def test_two_classes_that_are_swapped_are_refused():
    predicted, labels = draw(80, 0.9, (0.5, 0.5), read_as=(1, 0))
    with pytest.raises(InvalidDatasetError, match="the label 0 as 'good', 1 as 'bad'"):
        check_labels(predicted, labels, ("bad", "good"))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("examples", "accuracy"), [(4, 0.5), (20, 0.3), (300, 1 / 3), (300, 0.4), (300, 0.9)])
def test_few_examples_and_weak_models_are_not_refused(examples, accuracy, seed):
    notice = check_labels(*draw(examples, accuracy, seed=seed), NAMES)
    assert notice is None or "hardly tell" in notice
    assert notice is None or accuracy < 0.9


def test_where_one_class_is_so_common_that_a_constant_answer_wins_accuracy_is_refused():
    """An honest model, but by accuracy a candidate that ignores the text would seem to gain three points."""
    predicted, labels = draw(4000, 0.95, (0.98, 0.02))
    with pytest.raises(InvalidDatasetError, match=r"always answering 'no' would be on 9\d") as refusal:
        check_labels(predicted, labels, ("no", "yes"))
    assert "leave the labels out" in refusal.value.hint
    few = draw(100, 0.95, (0.98, 0.02))
    assert check_labels(*few, ("no", "yes")) is not None


def test_two_of_many_classes_that_are_swapped_are_a_notice_because_accuracy_still_means_something():
    predicted, labels = draw(2000, 0.9, (0.1,) * 10, read_as=(1, 0, *range(2, 10)))
    notice = check_labels(predicted, labels, [f"topic {number}" for number in range(10)])
    assert "Reading the label 0 as 'topic 1', 1 as 'topic 0'" in notice
