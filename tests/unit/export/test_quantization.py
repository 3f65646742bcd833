"""Rounding of weights and choice of activation ranges."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto
from onnx import helper
from onnx import numpy_helper

from compressors.export.onnx.quantization import Range
from compressors.export.onnx.quantization import quantize_in_blocks
from compressors.export.onnx.quantization import quantize_per_channel
from compressors.export.onnx.ranges import entropy_range
from compressors.export.onnx.ranges import mse_range
from compressors.export.onnx.ranges import percentile_range
from compressors.export.onnx.ranges import smoothing_divisor

weights = arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 70)),
    elements=st.floats(-8, 8, width=32).filter(lambda value: value == 0 or abs(value) > 1e-6),
)


@given(weights)
@settings(deadline=None)
def test_no_weight_moves_by_more_than_half_a_step(weight: np.ndarray) -> None:
    values, scales = quantize_per_channel(weight)
    assert np.all(np.abs(values * scales[:, None] - weight) <= scales[:, None] * 0.5001)
    assert values.min(initial=0) >= -127


def test_sums_of_reduced_weights_are_exact_on_every_processor() -> None:
    generator = np.random.default_rng(0)
    values, scales = quantize_per_channel(generator.choice([-1.0, 1.0], (64, 96)).astype(np.float32), bits=7)
    assert 2 * 255 * int(np.abs(values.astype(int)).max()) <= np.iinfo(np.int16).max  # a pair of products
    assert np.allclose(values * scales[:, None], np.sign(values))
    rows = generator.integers(250, 256, (8, 96)).astype(np.uint8)
    node = helper.make_node("MatMulInteger", ["rows", "weight"], ["sums"])
    weight = numpy_helper.from_array(np.ascontiguousarray(values.T), "weight")
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("rows", TensorProto.UINT8, rows.shape)],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, (8, 64))],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    (sums,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"rows": rows})
    assert np.array_equal(sums, rows.astype(np.int64) @ values.T.astype(np.int64))


@given(weights)
@settings(deadline=None)
def test_weights_on_the_grid_of_their_blocks_stay_where_they_are(weight: np.ndarray) -> None:
    for bits in (8, 4):
        blocks = quantize_in_blocks(weight, bits, 32)
        rounded = (blocks.values * blocks.scales[..., None]).reshape(len(weight), -1)[:, : weight.shape[1]]
        again = quantize_in_blocks(rounded.astype(np.float32), bits, 32)
        assert np.array_equal(blocks.values, again.values)


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_values_unpack_to_themselves(bits: int) -> None:
    weight = np.random.default_rng(0).standard_normal((3, 50), dtype=np.float32)
    blocks = quantize_in_blocks(weight, bits, 16)
    packed = blocks.packed()
    assert packed.shape == (3, 4, 16 * bits // 8)
    if bits == 4:
        packed = np.stack([packed & 15, packed >> 4], axis=-1).reshape(3, 4, 16)
    assert np.array_equal(packed.astype(int) - (1 << (bits - 1)), blocks.values)
    assert np.all(blocks.values.reshape(3, -1)[:, 50:] == 0)


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_zero_lies_on_the_grid_and_both_ends_are_reached(one: float, other: float) -> None:
    low, high = sorted((one, other))
    scale, zero = Range(low, high).affine()
    grid = (np.arange(256) - int(zero)) * float(scale)
    assert 0.0 in grid
    assert grid[0] <= min(low, 0.0) + 0.51 * scale
    assert grid[-1] >= max(high, 0.0) - 0.51 * scale


def test_outliers_are_cut_off_only_where_that_pays() -> None:
    generator = np.random.default_rng(1)
    bulk = generator.standard_normal(1_000_000).astype(np.float32)
    values = np.concatenate([bulk, np.float32([400.0])])
    extremes = Range(float(values.min()), 400.0)
    assert percentile_range(values, extremes).high < 10
    even = generator.uniform(-1, 1, 100_000).astype(np.float32)
    assert mse_range(even, Range(-1.0, 1.0)).high > 0.95


def test_the_chosen_range_has_the_least_error_of_all_that_were_tried() -> None:
    values = np.random.default_rng(2).standard_t(3, 50_000).astype(np.float32)
    extremes = Range(float(values.min()), float(values.max()))
    chosen = mse_range(values, extremes)
    assert _error(values, chosen) <= min(_error(values, extremes), _error(values, percentile_range(values, extremes)))


def test_entropy_keeps_what_has_no_tail_and_cuts_what_has_a_long_one() -> None:
    generator = np.random.default_rng(3)
    even = generator.uniform(-1, 1, 200_000).astype(np.float32)
    assert entropy_range(even, Range(-1.0, 1.0)).high == 1.0
    heavy = generator.standard_t(2, 200_000).astype(np.float32)
    extremes = Range(float(heavy.min()), float(heavy.max()))
    assert entropy_range(heavy, extremes).high < extremes.high


@pytest.mark.parametrize("alpha", [0.3, 0.7])
def test_smoothing_evens_out_channels_and_leaves_the_product_alone(alpha: float) -> None:
    generator = np.random.default_rng(4)
    spread = np.exp(generator.normal(0, 2, 40)).astype(np.float32)
    spread[3] = 0
    inputs = generator.standard_normal((50, 40)).astype(np.float32) * spread
    weight = generator.standard_normal((7, 40)).astype(np.float32)
    largest, heaviest = np.abs(inputs).max(axis=0), np.abs(weight).max(axis=0)
    divisor = smoothing_divisor(largest, heaviest, alpha)
    assert divisor[3] == 1
    assert np.allclose((inputs / divisor) @ (weight * divisor).T, inputs @ weight.T, rtol=1e-4, atol=1e-4)
    alive = largest > 0
    before, after = np.log(largest[alive]).std(), np.log((largest / divisor)[alive]).std()
    assert after < before


def _error(values: np.ndarray, limits: Range) -> float:
    scale, zero = limits.affine()
    rounded = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
    return float(np.mean(np.square(rounded - values)))
