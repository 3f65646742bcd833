"""Word, position and token-type embeddings, and the attention mask."""

import numpy as np

from compressors.export.onnx.context import Context
from compressors.export.onnx.linear import to_numpy
from compressors.export.onnx.normalization import emit_norm
from compressors.export.onnx.quantization import Float
from compressors.export.onnx.quantization import quantize_rows
from compressors.network import Embeddings

MASKED = np.float32(-1e30)
"""Added to the scores of padded keys; finite, so that a row of nothing but padding stays finite."""


def has_token_types(embeddings: Embeddings) -> bool:
    """Whether the graph needs the input ``token_type_ids``."""
    return embeddings.token_type is not None and embeddings.token_type.shape[0] > 1


def emit_embeddings(context: Context, embeddings: Embeddings, limit: int) -> str:
    """Write the normalised sum of the embeddings; returns hidden states in the recipe's layout."""
    builder = context.builder
    words = _words(context, to_numpy(embeddings.word), _ids(context, "input_ids"))
    table = to_numpy(embeddings.position)[:limit]
    if has_token_types(embeddings):
        places = _positions_and_types(context, table, embeddings)
    else:
        if embeddings.token_type is not None:
            table = table + to_numpy(embeddings.token_type)[0]
        places = _positions(context, table)
    total = builder.node("Add", [words, places], "embeddings.sum")
    if not context.flat:
        return emit_norm(context, total, embeddings.norm, "embeddings.norm")
    rows = builder.node("Reshape", [total, builder.constant([-1, embeddings.word.shape[1]])], "embeddings.rows")
    return emit_norm(context, rows, embeddings.norm, "embeddings.norm")


def emit_mask(context: Context) -> str:
    """Write the additive mask, ``[batch, 1, 1, sequence]``: 0 where attended, very negative where padded."""
    if "mask" not in context.memo:
        builder = context.builder
        padded = builder.node("Sub", [builder.constant(np.int64(1)), "attention_mask"], "mask.padded")
        floats = builder.node("Cast", [padded], "mask.float", to=1)
        scaled = builder.node("Mul", [floats, builder.constant(MASKED)], "mask.scaled")
        context.memo["mask"] = builder.node("Unsqueeze", [scaled, builder.constant([1, 2])], "mask.bias")
    return context.memo["mask"]


def emit_sequence_length(context: Context) -> str:
    """Write the sequence length as an int64 vector of one element."""
    if "length" not in context.memo:
        context.memo["length"] = context.builder.node("Shape", ["input_ids"], "sequence.length", start=1, end=2)
    return context.memo["length"]


def emit_batch_size(context: Context) -> str:
    """Write the batch size as an int64 vector of one element."""
    if "batch" not in context.memo:
        context.memo["batch"] = context.builder.node("Shape", ["input_ids"], "batch.size", start=0, end=1)
    return context.memo["batch"]


def emit_sequence_shape(context: Context, width: int) -> str:
    """Write the vector ``(sequence, -1, width)``, which views flat rows as ``[sequence, anything, width]``."""
    key = f"sequence.shape.{width}"
    if key not in context.memo:
        inputs = [emit_sequence_length(context), context.builder.constant([-1, width])]
        context.memo[key] = context.builder.node("Concat", inputs, key, axis=0)
    return context.memo[key]


def _ids(context: Context, name: str) -> str:
    if not context.flat:
        return name
    return context.builder.node("Transpose", [name], f"{name}.sequence_first", perm=[1, 0])


def _words(context: Context, table: Float, ids: str) -> str:
    """Rows of the word table, which is stored in float32, or in int8 with a scale for each row."""
    builder = context.builder
    if context.quantization.embedding_bits == 32:
        return builder.node("Gather", [builder.initializer("embeddings.word", table), ids], "embeddings.words")
    values, scales = quantize_rows(table)
    integers = builder.node("Gather", [builder.initializer("embeddings.word", values), ids], "embeddings.integers")
    factors = builder.node("Gather", [builder.initializer("embeddings.word.scale", scales), ids], "embeddings.scales")
    floats = builder.node("Cast", [integers], "embeddings.floats", to=1)
    return builder.node("Mul", [floats, factors], "embeddings.words")


def _sums(context: Context, positions: Float, types: Float) -> str:
    """Every type's row plus every position's, ``[types * positions, width]``; with 8 bits from the two tables."""
    builder, width = context.builder, positions.shape[1]
    if context.quantization.embedding_bits == 32:
        return builder.initializer(
            "embeddings.position_and_type", (types[:, None] + positions[None]).reshape(-1, width)
        )
    kinds = builder.initializer("embeddings.type", np.ascontiguousarray(types[:, None]))
    sums = builder.node("Add", [kinds, _stored(context, "embeddings.position", positions)], "embeddings.sums")
    return builder.node("Reshape", [sums, builder.constant([-1, width])], "embeddings.position_and_type")


def _stored(context: Context, name: str, table: Float) -> str:
    """A small table ``[..., width]``, kept in as many bits as the word table.

    8 bits are turned into float32 before the look-up, not after it: a runtime does that once, when it loads the file.
    """
    builder = context.builder
    if context.quantization.embedding_bits == 32:
        return builder.initializer(name, np.ascontiguousarray(table))
    values, scales = quantize_rows(table.reshape(-1, table.shape[-1]))
    integers = builder.initializer(f"{name}.integers", values.reshape(table.shape))
    factors = builder.initializer(f"{name}.scale", scales.reshape(*table.shape[:-1], 1))
    return builder.node("Mul", [builder.node("Cast", [integers], f"{name}.floats", to=1), factors], name)


def _positions(context: Context, rows: Float) -> str:
    """The first ``sequence`` rows, ``[1, sequence, hidden]`` (or ``[sequence, 1, hidden]``)."""
    builder = context.builder
    table = rows[:, None] if context.flat else rows[None]
    axis = 0 if context.flat else 1
    if context.static is not None:
        table = table[: context.static[1]] if context.flat else table[:, : context.static[1]]
        return _stored(context, "embeddings.position", table)
    stored = _stored(context, "embeddings.position", table)
    inputs = [stored, builder.constant([0]), emit_sequence_length(context), builder.constant([axis])]
    return builder.node("Slice", inputs, "embeddings.positions")


def _positions_and_types(context: Context, rows: Float, embeddings: Embeddings) -> str:
    """One look-up for both: row ``type * positions + position`` of the table of all their sums."""
    builder = context.builder
    assert embeddings.token_type is not None
    stored = _sums(context, rows, to_numpy(embeddings.token_type))
    numbers = np.arange(rows.shape[0], dtype=np.int64)
    numbers = numbers[:, None] if context.flat else numbers[None]
    every = builder.initializer("embeddings.row_numbers", numbers)
    axis = 0 if context.flat else 1
    first = builder.node(
        "Slice",
        [every, builder.constant([0]), emit_sequence_length(context), builder.constant([axis])],
        "embeddings.row_numbers.first",
    )
    offset = builder.node(
        "Mul", [_ids(context, "token_type_ids"), builder.constant(np.int64(rows.shape[0]))], "embeddings.row_offset"
    )
    index = builder.node("Add", [offset, first], "embeddings.row")
    return builder.node("Gather", [stored, index], "embeddings.places")
