"""What bf16 costs beside its products: attention's gradient, and the first product of each number of tokens."""

import time
from collections.abc import Callable
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from benchmarks.recovery.bench import Bench
from benchmarks.recovery.bench import Budget
from benchmarks.recovery.bench import Rows
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.precision import candidate_precisions

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
TEXTS = 32
LENGTHS = (16, 32, 48, 64)
REPEATS = 25
TOKENS = range(509, 769, 4)
"""Numbers of tokens that no other section has multiplied: batches are padded to widths that are multiples of four."""


def kernels(bench: Bench, _: Sequence[Budget]) -> Rows:
    """Milliseconds of the shape's attention, with its gradient, and of its first FFN product, in f32 and bf16."""
    rows = []
    for name in candidate_precisions(RecoveryConfig()):
        row, dtype = {"precision": name}, DTYPES[name]
        for length in LENGTHS:
            row[f"attention of {TEXTS} x {length}"] = f"{_attention(bench, length, dtype):.2f}"
        first, again = _products(bench, dtype)
        rows.append(row | {"product, first of its size": f"{first:.2f}", "again": f"{again:.2f}"})
    return rows


def _attention(bench: Bench, length: int, dtype: torch.dtype) -> float:
    """Return the median milliseconds of one layer's attention, forward and backward."""
    attention = bench.network.layers[0].attention
    assert attention is not None
    heads = bench.recipe.layers[0].attention.heads
    shape = (TEXTS, heads or attention.heads, length, attention.head_size)
    query, key, value = (torch.randn(shape).to(dtype).requires_grad_() for _ in range(3))

    def run() -> None:
        functional.scaled_dot_product_attention(query, key, value).sum().backward()  # type: ignore[no-untyped-call]

    run()
    return float(np.median([_milliseconds(run) for _ in range(REPEATS)]))


def _products(bench: Bench, dtype: torch.dtype) -> tuple[float, float]:
    """Return the median milliseconds of a product with a new number of tokens, and of the same one again."""
    branch = bench.network.layers[0].feed_forward
    assert branch is not None
    width = bench.recipe.layers[0].feed_forward.intermediate_size or branch.intermediate_size
    weight = torch.randn(width, branch.up.matrix().shape[1]).to(dtype)
    first, again = [], []
    for tokens in TOKENS:
        rows = torch.randn(tokens, weight.shape[1]).to(dtype)
        product = partial(functional.linear, rows, weight)
        first.append(_milliseconds(product))
        again.append(min(_milliseconds(product) for _ in range(3)))
    return float(np.median(first)), float(np.median(again))


def _milliseconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - started)
