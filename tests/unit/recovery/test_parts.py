"""Losses, batches, variants, the teacher's file, the schedule."""

import os
import random
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies
from safetensors import safe_open
from torch.nn import functional

from compressors.network import EncoderNetwork
from compressors.recovery import losses
from compressors.recovery.config import Augmentation
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import UNLABELLED
from compressors.recovery.data import TrainingData
from compressors.recovery.data import collate
from compressors.recovery.data import epoch_batches
from compressors.recovery.data import even_parts
from compressors.recovery.data import padded_width
from compressors.recovery.precision import autocast
from compressors.recovery.prepare import FEWEST_HELD
from compressors.recovery.prepare import prepare
from compressors.recovery.schedule import Plan
from compressors.recovery.schedule import learning_rate_factor
from compressors.recovery.states import forward_with_states
from compressors.recovery.states import layer_map
from compressors.recovery.teacher import LiveTeacher
from compressors.recovery.teacher import TeacherCache
from compressors.torch_module import structure_of
from compressors.torch_module import to_module
from infra.errors import CancelledError
from infra.errors import InvalidDatasetError
from tests.unit.recovery.conftest import CLS
from tests.unit.recovery.conftest import SEP
from tests.unit.recovery.conftest import make_texts


def test_every_distance_is_zero_for_a_perfect_copy_and_positive_otherwise() -> None:
    teacher, mask = torch.randn(6, 5), torch.ones(6, 5)
    states = torch.randn(6, 5, 8)
    for other in (torch.zeros(6, 5), torch.randn(6, 5)):
        assert (
            losses.logits_loss(teacher, teacher, 2.0).abs() < 1e-6 < losses.logits_loss(other + teacher, teacher) + 1e-5
        )
    assert losses.cosine_loss(teacher * 3, teacher).abs() < 1e-6 < losses.cosine_loss(-teacher, teacher)
    relational = [losses.relational_loss(student, teacher, 0.1) for student in (teacher, teacher.flip(1)[:, :3])]
    assert relational[0].abs() < 1e-6 < relational[1]
    assert losses.square_head_loss(states, states, mask) == 0
    assert losses.square_head_loss(torch.zeros_like(states), states, mask) == pytest.approx(1.0)


def test_similarities_are_compared_by_how_much_they_differ_in_all_texts() -> None:
    torch.manual_seed(0)
    teacher = torch.randn(40, 8)
    spread = losses.similarity_variance(teacher)
    assert spread == pytest.approx(float(_cosines(teacher).var()), rel=1e-2)
    student = teacher + 0.3 * torch.randn(40, 8)
    whole = float(losses.relational_loss(student, teacher, spread))
    pairs = [
        float(losses.relational_loss(student[row : row + 2], teacher[row : row + 2], spread)) for row in range(0, 40, 2)
    ]
    assert sum(pairs) / len(pairs) == pytest.approx(whole, rel=1.0)
    assert losses.similarity_variance(torch.ones(5, 8)) == losses.LEAST_SPREAD  # all alike


def _cosines(embeddings: torch.Tensor) -> torch.Tensor:
    rows, columns = torch.triu_indices(len(embeddings), len(embeddings), 1)
    return functional.cosine_similarity(embeddings[rows], embeddings[columns])


def test_padding_and_missing_labels_do_not_count() -> None:
    states, other, mask = torch.randn(2, 4, 8), torch.randn(2, 4, 8), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    changed = other.clone()
    changed[0, 2:] = 1e3
    assert losses.square_head_loss(changed, states, mask) == losses.square_head_loss(other, states, mask)
    logits = torch.randn(3, 2)
    expected = functional.cross_entropy(logits[:2], torch.tensor([1, 0]), reduction="sum")
    assert losses.task_loss(logits, torch.tensor([1, 0, UNLABELLED])) == pytest.approx(float(expected))
    assert losses.task_loss(logits, torch.full((3,), UNLABELLED)) == 0


@given(
    lengths=strategies.lists(strategies.integers(1, 60), min_size=1, max_size=300),
    size=strategies.integers(1, 40),
    epoch=strategies.integers(0, 5),
)
def test_an_epoch_sees_every_text_once_in_an_order_that_seed_and_epoch_fix(
    lengths: list[int], size: int, epoch: int
) -> None:
    batches = epoch_batches(lengths, size, 3, epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in batches)
    assert batches == epoch_batches(lengths, size, 3, epoch)


def test_batches_hold_texts_of_similar_length() -> None:
    generator = random.Random(0)
    lengths = [generator.randrange(3, 60) for _ in range(2000)]
    padded = sum(max(lengths[row] for row in batch) * len(batch) for batch in epoch_batches(lengths, 32, 0, 0))
    assert padded < 1.1 * sum(lengths)


def test_variants_come_from_training_texts_only_and_have_no_labels() -> None:
    ids = [[CLS, *([10 + row] * 8), SEP] for row in range(100)]
    config = RecoveryConfig(augmentation=Augmentation(copies=3, replace_probability=0.3))
    data = prepare(TrainingData(ids, [row % 2 for row in range(100)], [[0] * 10] * 100), config)
    held_words = {10 + row for row in data.held}
    fresh = range(100, len(data.examples))
    assert len(fresh) == 3 * (100 - len(data.held))
    for row in fresh:
        tokens = data.examples.input_ids[row]
        assert (tokens[0], tokens[-1]) == (CLS, SEP)
        assert not held_words & set(tokens)
        assert data.examples.labels[row] == UNLABELLED
        assert len(data.examples.token_type_ids[row]) == len(tokens)
    assert set(data.train) | set(data.held) == set(range(len(data.examples)))


def test_long_texts_keep_their_last_token() -> None:
    data = TrainingData([[CLS, 5, 6, 7, 8, SEP], [CLS, SEP]]).truncated(4)
    assert data.input_ids == [[CLS, 5, 6, SEP], [CLS, SEP]]


@pytest.mark.parametrize("columns", [{"labels": [0]}, {"token_type_ids": [[0]]}])
def test_columns_of_unequal_length_are_refused(columns: dict) -> None:
    with pytest.raises(InvalidDatasetError, match="2 texts"):
        TrainingData([[1], [2]], **columns)


def test_the_teachers_file_holds_what_the_dense_model_says(
    classifier: EncoderNetwork, texts: TrainingData, tmp_path: Path
) -> None:
    path = tmp_path / "teacher.safetensors"
    built = TeacherCache.build(classifier, texts, state_layers=(0, 2), path=path, batch_size=7)
    loaded, live = TeacherCache.load(path), LiveTeacher(classifier, (0, 2))
    batch = collate(texts, [5, 150, 0, 33])
    attended = batch.attention_mask.bool()
    expected = live.targets(batch)
    for teacher in (built, loaded):
        given = teacher.targets(batch)
        torch.testing.assert_close(given.output, expected.output)
        for layer in (0, 2):
            torch.testing.assert_close(
                given.states[layer][attended], expected.states[layer][attended], atol=2e-3, rtol=2e-3
            )
            assert given.states[layer][~attended].abs().sum() == 0
    with torch.no_grad():
        logits = to_module(classifier)(batch.input_ids, batch.attention_mask)
    torch.testing.assert_close(expected.output, logits)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_the_teachers_file_takes_no_memory(classifier: EncoderNetwork, texts: TrainingData, tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    teachers = [TeacherCache.build(classifier, texts, state_layers=(0, 2), path=path), TeacherCache.load(path)]
    for teacher in teachers:
        teacher.targets(collate(texts, [0, 1]))
    assert str(path) not in Path("/proc/self/maps").read_text(encoding="utf-8")
    with safe_open(path, framework="pt") as file:  # others can read it too
        assert set(file.keys()) == {"lengths", "output", "states.0", "states.2"}


def test_a_teachers_file_that_is_cut_off_is_noticed(
    classifier: EncoderNetwork, texts: TrainingData, tmp_path: Path
) -> None:
    path = tmp_path / "teacher.safetensors"
    teacher = TeacherCache.build(classifier, texts, state_layers=(0, 2), path=path)
    os.truncate(path, path.stat().st_size // 4)
    with pytest.raises(EOFError, match="delete it"):
        teacher.targets(collate(texts, range(len(texts))))


def test_a_shortened_last_layer_gives_the_same_output_and_gradients(
    classifier: EncoderNetwork, texts: TrainingData
) -> None:
    batch, results = collate(texts, range(12)), []
    for shorten in (False, True):
        module = to_module(classifier)
        output, states = forward_with_states(module, batch, (2,), shorten=shorten)
        output.square().sum().backward()
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        results.append([output, states[2][:, :1], *gradients])
    for whole, short in zip(*results, strict=True):
        torch.testing.assert_close(short, whole, rtol=1e-4, atol=1e-4)


def test_a_cancelled_teacher_leaves_no_file(classifier: EncoderNetwork, texts: TrainingData, tmp_path: Path) -> None:
    with pytest.raises(CancelledError):
        TeacherCache.build(classifier, texts, path=tmp_path / "teacher", should_stop=lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_hands_on_what_the_next_one_used_to_receive(classifier: EncoderNetwork) -> None:
    structure = structure_of(classifier)
    assert layer_map(structure, 3) == {0: 0, 1: 1, 2: 2}
    without_second = structure.model_copy(update={"layers": (structure.layers[0], structure.layers[2])})
    assert layer_map(without_second, 3) == {0: 1, 1: 2}
    without_last = structure.model_copy(update={"layers": structure.layers[:2]})
    assert layer_map(without_last, 3) == {0: 0, 1: 2}


@given(changes=strategies.lists(strategies.floats(0.2, 5), min_size=1, max_size=8), warmup=strategies.floats(0, 0.5))
def test_progress_never_jumps_and_ends_at_one_however_the_plan_changes(changes: list[float], warmup: float) -> None:
    plan, previous = Plan(100), 0.0
    slow = iter(changes)
    while not plan.finished:
        plan.advance()
        assert previous < plan.progress <= 1.0 + 1e-9
        previous = plan.progress
        assert 0 <= learning_rate_factor(plan.progress, warmup, "cosine") <= 1
        if plan.step % 20 == 0:
            plan.refit(plan.step * 1.0, next(slow, 1.0), 100.0, 400)
    assert plan.steps <= 400
    assert plan.step == plan.steps


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    for decay in ("linear", "cosine"):
        assert learning_rate_factor(0.05, 0.1, decay) == pytest.approx(0.5)
        assert learning_rate_factor(0.1, 0.1, decay) == pytest.approx(1.0)
        assert learning_rate_factor(1.0, 0.1, decay) == pytest.approx(0.0, abs=1e-9)


def test_texts_without_a_single_training_example_are_refused() -> None:
    with pytest.raises(InvalidDatasetError, match="too few"):
        prepare(make_texts(2, 20), RecoveryConfig())


def test_all_texts_are_trained_on_where_others_choose_the_checkpoint() -> None:
    texts, held = make_texts(200, 40), make_texts(80, 40, seed=1, labelled=False)
    config = RecoveryConfig(augmentation=Augmentation(copies=2, shortest_span=0.01))
    data = prepare(texts, config, held)
    rows = data.examples.input_ids
    assert [rows[row] for row in data.held] == held.input_ids
    assert data.train[:200] == list(range(200))
    assert {data.examples.labels[row] for row in data.held} == {UNLABELLED}
    assert len(data.examples) == len(data.train) + len(data.held)
    assert prepare(texts, config, held) == data


def test_a_text_that_chooses_the_checkpoint_is_not_trained_on_nor_is_a_variant_that_equals_it() -> None:
    texts = make_texts(100, 40)
    words = [[CLS, word, SEP] for word in range(4, 40)]  # many a variant is a single word
    held = TrainingData(
        [*texts.input_ids[:40], *words], token_type_ids=[[0] * len(r) for r in texts.input_ids[:40] + words]
    )
    data = prepare(texts, RecoveryConfig(augmentation=Augmentation(copies=8, shortest_span=0.01)), held)
    trained = [tuple(data.examples.input_ids[row]) for row in data.train]
    assert not set(trained) & {tuple(row) for row in held.input_ids}
    assert data.train[:60] == list(range(40, 100))
    assert len(trained) > 300
    assert len(data.examples.token_type_ids) == len(data.examples)


def test_few_texts_to_choose_by_are_made_up_for_by_held_back_ones() -> None:
    texts, held = make_texts(600, 400), make_texts(FEWEST_HELD - 10, 400, seed=1)
    data = prepare(texts, RecoveryConfig(), held)
    assert len(data.held) == FEWEST_HELD
    assert len(data.train) == 590
    assert not set(data.train) & set(data.held)
    few = prepare(make_texts(50, 400), RecoveryConfig(), held)
    assert len(few.held) == len(held) + 5, "no more than the usual part"


@pytest.mark.parametrize(
    ("longest", "positions", "expected"), [(1, 64, 4), (12, 64, 12), (13, 64, 16), (13, 14, 14), (14, 14, 14)]
)
def test_batches_have_few_widths_and_no_more_tokens_than_the_model_reads(longest, positions, expected):
    assert padded_width(longest, positions) == expected


@pytest.mark.parametrize(
    ("rows", "width", "tokens", "sizes"),
    [
        (32, 8, 1024, [32]),
        (32, 36, 1024, [16, 16]),
        (32, 64, 1024, [16, 16]),
        (7, 10, 30, [3, 3, 1]),
        (3, 99, 9, [1] * 3),
    ],
)
def test_parts_of_a_batch_are_as_few_as_fit_and_about_equally_large(rows, width, tokens, sizes):
    parts = list(even_parts(list(range(rows)), width, tokens))
    assert [len(part) for part in parts] == sizes
    assert [row for part in parts for row in part] == list(range(rows))


def test_a_batch_may_be_wider_than_its_texts(texts):
    batch, exact = collate(texts, [0, 3], 40), collate(texts, [0, 3])
    assert batch.input_ids.shape == batch.attention_mask.shape == (2, 40)
    assert torch.equal(batch.attention_mask.sum(1), exact.attention_mask.sum(1))


def test_products_are_in_bf16_and_attention_is_not():
    """Its gradient in bf16 takes about ten times as long on a CPU."""
    values = torch.randn(2, 2, 5, 8, requires_grad=True)
    with autocast("bf16"):
        product = functional.linear(values, torch.randn(8, 8))
        attended = functional.scaled_dot_product_attention(product, product, product)
    assert (product.dtype, attended.dtype) == (torch.bfloat16, torch.float32)
    attended.sum().backward()
    assert values.grad.abs().sum() > 0
    with autocast("f32"):
        assert functional.linear(values, torch.randn(8, 8)).dtype == torch.float32
