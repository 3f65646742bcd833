"""Encoding, running and comparing, with a real tokenizer and real ONNX models."""

import json
import math
from itertools import combinations

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from infra.errors import InvalidInputError
from infra.errors import InvalidModelError
from profilers.quality import metrics
from profilers.quality.encode import TextEncoder
from profilers.quality.evaluate import compare
from profilers.quality.evaluate import evaluate
from profilers.quality.evaluate import run_all
from profilers.quality.examples import Examples
from profilers.quality.paired import mcnemar
from profilers.quality.paired import mean_estimate
from profilers.registry import get_profiler
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Workload
from tests.unit.profilers.onnx_models import write_classifier

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "very"]
CLASSIFICATION = "sequence-classification"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(pad_id=0, length=32)  # as many published tokenizers have it: must not leak
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    return TextEncoder(folder, max_length=8)


def test_texts_are_encoded_without_padding(encoder):
    encoded = encoder.encode(Examples(("good film", "bad")))
    assert [ids.tolist() for ids in encoded.input_ids] == [[2, 4, 6, 3], [2, 5, 3]]
    batch = encoded.batch([0, 1])
    assert batch["input_ids"].tolist() == [[2, 4, 6, 3], [2, 5, 3, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert {value.dtype for value in batch.values()} == {np.dtype(np.int64)}


def test_pairs_have_types(encoder):
    encoded = encoder.encode(Examples(("good film",), ("very bad",)))
    batch = encoded.batch([0], length=8)
    assert batch["input_ids"].tolist() == [[2, 4, 6, 3, 7, 5, 3, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 0]]


def test_long_texts_keep_their_separator(encoder):
    encoded = encoder.encode(Examples(("very " * 20 + "good",)))
    assert len(encoded.input_ids[0]) == 8
    assert encoded.batch([0], length=5)["input_ids"].tolist() == [[2, 7, 7, 7, 3]]


def test_batches_are_full_and_name_their_real_rows(encoder):
    encoded = encoder.encode(Examples(("good", "bad", "film")))
    batches = list(encoded.batches(2, 6))
    assert [real.tolist() for real, _ in batches] == [[0, 1], [2]]
    assert all(feeds["input_ids"].shape == (2, 6) for _, feeds in batches)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(InvalidModelError, match=r"tokenizer\.json"):
        TextEncoder(tmp_path, 8)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A dense bag-of-words model, and one that has lost a word."""
    folder = tmp_path_factory.mktemp("models")
    table = np.zeros((len(WORDS), 2))
    table[4], table[5] = (0, 4), (4, 0)
    lossy = table.copy()
    lossy[5] = (0, 1)
    return {"dense": write_classifier(folder / "a.onnx", table), "lossy": write_classifier(folder / "b.onnx", lossy)}


@pytest.fixture
def session():
    device = DeviceProfile(name="d", profiler="onnxruntime")
    with get_profiler("onnxruntime").open(device, Workload(batch=2, sequence_length=6), pinned=False) as session:
        yield session


EXAMPLES = Examples(("good film", "bad film", "very bad", "good", "very good film"), labels=np.array([1, 0, 0, 1, 1]))


@pytest.mark.parametrize("padded", [True, False])
def test_evaluation_against_labels(encoder, models, session, padded):
    encoded = encoder.encode(EXAMPLES)
    workload = session.workload
    dense = run_all(session.load(Artifact(path=models["dense"])), encoded, CLASSIFICATION, workload, padded=padded)
    assert (dense.argmax(axis=1) == EXAMPLES.labels).all()
    lossy = session.load(Artifact(path=models["lossy"]))
    quality, each = evaluate(
        lossy, encoded, dense, EXAMPLES.labels, CLASSIFICATION, workload, split="search", padded=padded
    )
    assert quality.metric == "accuracy"
    assert quality.value.value == pytest.approx(0.6)
    assert quality.dense == 1.0
    assert quality.drop.value == pytest.approx(0.4)
    assert quality.drop.low <= 0.4 <= quality.drop.high
    assert quality.fidelity == pytest.approx(0.6)
    assert quality.details["flips"] == 2
    assert quality.details["mcnemar_p"] == pytest.approx(0.5)
    assert (each.correct == [1, 0, 0, 1, 1]).all()
    assert (each.divergence[[0, 3, 4]] == 0).all()
    assert (each.divergence[[1, 2]] > 0).all()


def test_padding_is_masked_so_both_modes_agree_in_fp32(encoder, models, session):
    encoded = encoder.encode(EXAMPLES)
    handle = session.load(Artifact(path=models["dense"]))
    outputs = [run_all(handle, encoded, CLASSIFICATION, session.workload, padded=p) for p in (True, False)]
    assert np.allclose(*outputs, atol=1e-6)


def test_without_labels_fidelity_is_the_metric(encoder, models, session):
    encoded = encoder.encode(EXAMPLES)
    handle = session.load(Artifact(path=models["dense"]))
    dense = run_all(handle, encoded, CLASSIFICATION, session.workload, padded=True)
    quality, each = evaluate(
        handle, encoded, dense, None, CLASSIFICATION, session.workload, split="holdout", padded=True
    )
    assert (quality.metric, quality.value.value, quality.fidelity, quality.divergence) == ("fidelity", 1, 1, 0)
    assert quality.drop.value == 0
    assert quality.drop.high > 0  # five examples prove little
    assert each.correct is None


def test_mismatched_lengths_and_outputs_are_errors(encoder, models, session):
    encoded = encoder.encode(EXAMPLES)
    handle = session.load(Artifact(path=models["dense"]))
    with pytest.raises(InvalidInputError, match="5 texts, 4 dense"):
        evaluate(handle, encoded, np.zeros((4, 2)), None, CLASSIFICATION, session.workload, split="search", padded=True)
    with pytest.raises(InvalidModelError, match="shape"):
        evaluate(handle, encoded, np.zeros((5, 3)), None, CLASSIFICATION, session.workload, split="search", padded=True)


def test_a_model_that_overflows_is_refused(tmp_path, encoder, session):
    table = np.full((len(WORDS), 2), np.inf)
    handle = session.load(Artifact(path=write_classifier(tmp_path / "inf.onnx", table)))
    with pytest.raises(InvalidModelError, match="not finite for 5 of 5"):
        run_all(handle, encoder.encode(EXAMPLES), CLASSIFICATION, session.workload, padded=True)


def test_embeddings_are_compared_by_cosine_and_by_neighbours():
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((60, 16))
    rotation, _ = np.linalg.qr(rng.standard_normal((16, 16)))
    same, _ = compare(dense * 3, dense, None, "embedding", split="search", padded=False)
    rotated, _ = compare(dense @ rotation, dense, None, "embedding", split="search", padded=False)
    noisy, each = compare(
        dense + 0.5 * rng.standard_normal(dense.shape), dense, None, "embedding", split="search", padded=False
    )
    assert same.fidelity == pytest.approx(1)
    assert rotated.fidelity < 0.5
    assert rotated.details["neighbour_overlap"] == pytest.approx(1)
    assert rotated.details["similarity_spearman"] == pytest.approx(1)
    assert noisy.details["neighbour_overlap"] < 0.9
    assert noisy.details["cosine_p01"] <= noisy.fidelity
    assert noisy.drop.value == pytest.approx(noisy.divergence) == pytest.approx(each.divergence.mean())


def test_kl_matches_the_definition():
    rng = np.random.default_rng(0)
    dense, candidate = rng.standard_normal((2, 7, 3)) * 5
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (dense, candidate))
    assert np.allclose(metrics.kl_divergence(dense, candidate), (p * np.log(p / q)).sum(axis=1))
    assert np.allclose(metrics.kl_divergence(dense, dense + 100), 0)
    assert np.isfinite(metrics.kl_divergence(np.array([[1e4, 0.0]]), np.array([[0.0, 1e4]]))).all()


def test_neighbour_overlap_matches_brute_force():
    rng = np.random.default_rng(1)
    dense, candidate = rng.standard_normal((2, 20, 4))

    def nearest(vectors, i):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        others = sorted((j for j in range(20) if j != i), key=lambda j: -unit[i] @ unit[j])
        return set(others[:3])

    expected = [len(nearest(dense, i) & nearest(candidate, i)) / 3 for i in range(20)]
    assert np.allclose(metrics.neighbour_overlap(dense, candidate, 3), expected)


def test_spearman_matches_brute_force_and_shares_ties():
    assert metrics.ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]
    rng = np.random.default_rng(2)
    dense, candidate = rng.standard_normal((2, 8, 3))
    columns = []
    for vectors in (dense, candidate):
        unit = metrics.unit_rows(vectors)
        values = [unit[i] @ unit[j] for i, j in combinations(range(8), 2)]
        columns.append(np.argsort(np.argsort(values)))
    assert metrics.similarity_correlation(dense, candidate) == pytest.approx(np.corrcoef(*columns)[0, 1])


def test_counting_resamples_as_drawing_does():
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 400, p=[0.05, 0.85, 0.1])
    fast = mean_estimate(values)
    slow = mean_estimate(values + np.linspace(0, 1e-9, 400))  # all distinct: drawn one by one
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.006)


def test_drop_intervals_cover():
    rng = np.random.default_rng(4)
    covered = 0
    for seed in range(200):
        estimate = mean_estimate(rng.choice([-1.0, 0.0, 1.0], 300, p=[0.04, 0.88, 0.08]), seed)
        covered += estimate.low <= 0.04 <= estimate.high
    assert covered >= 0.9 * 200


def test_mcnemar_is_the_exact_binomial_test():
    first = np.array([1] * 9 + [0] * 2 + [1] * 50)
    second = np.array([0] * 9 + [1] * 2 + [1] * 50)
    expected = 2 * sum(math.comb(11, k) for k in range(3)) / 2**11
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(first, first) == 1.0
    many = np.arange(5000) % 2
    assert 0 < mcnemar(many, 1 - many) <= 1.0
