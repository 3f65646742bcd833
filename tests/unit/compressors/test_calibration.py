from pathlib import Path

import pytest
import torch
from torch import Tensor

from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.calibration.accumulator import Accumulator
from compressors.calibration.cache import ByteCache
from compressors.network import EncoderNetwork
from compressors.orders import channel_order
from compressors.orders import head_order
from infra.errors import InvalidInputError
from tests.unit.compressors.conftest import READERS
from tests.unit.compressors.conftest import TEXTS
from tests.unit.compressors.conftest import activations
from tests.unit.compressors.conftest import make_batches
from tests.unit.compressors.data import moments_of


@pytest.mark.parametrize("site", READERS)
@pytest.mark.parametrize("layer", [0, 1])
def test_moments_are_those_of_the_attended_tokens(
    bert: EncoderNetwork, batches: list[dict[str, Tensor]], layer: int, site: str
):
    calibration = calibrate(bert, batches)
    inputs = activations(bert, batches, layer, site)
    statistics, expected = calibration.at(layer, site), moments_of(inputs)
    assert calibration.tokens == statistics.count == len(inputs)
    scale = float(expected.centred.diagonal().max())
    torch.testing.assert_close(statistics.moments().centred, expected.centred, atol=1e-6 * scale, rtol=0)
    torch.testing.assert_close(statistics.mean, expected.mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(statistics.mean_absolute.double(), inputs.abs().mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(statistics.max_absolute.double(), inputs.abs().amax(0), atol=1e-5, rtol=0)


def test_padding_and_batching_do_not_matter(bert: EncoderNetwork, bert_dir: Path):
    together, apart = (calibrate(bert, make_batches(bert_dir, size=size)) for size in (len(TEXTS), 1))
    assert together.tokens == apart.tokens
    for key in together.inputs:
        statistics, other = together.at(*key), apart.at(*key)
        torch.testing.assert_close(statistics.centred, other.centred, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(statistics.mean, other.mean, atol=1e-5, rtol=1e-5)
    assert together.similarity == pytest.approx(apart.similarity, abs=1e-5)


def test_same_input_same_bytes_and_back(tmp_path: Path, bert: EncoderNetwork, batches: list[dict[str, Tensor]]):
    for name in ("first", "second"):
        calibration = calibrate(bert, batches)
        for layer in bert.layers:
            head_order(layer, calibration, "obs")
            channel_order(layer, calibration, "obs")
        calibration.save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    loaded = Calibration.load(tmp_path / "first")
    assert loaded.inputs.keys() == calibration.inputs.keys()
    assert (loaded.tokens, loaded.similarity) == (calibration.tokens, calibration.similarity)
    assert {key: order.tolist() for key, order in loaded.orders.items()} == {
        key: order.tolist() for key, order in calibration.orders.items()
    }
    for key in loaded.inputs:
        statistics, expected = loaded.at(*key), calibration.at(*key)
        assert statistics.count == expected.count
        for name in ("centred", "mean", "mean_absolute", "max_absolute"):
            assert torch.equal(getattr(statistics, name), getattr(expected, name))


@pytest.mark.parametrize("damage", [b"", b"not safetensors at all", None])
def test_damaged_files_are_refused(tmp_path: Path, calibration: Calibration, damage: bytes | None):
    path = tmp_path / "calibration.safetensors"
    calibration.save(path)
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(InvalidInputError):
        Calibration.load(path)


def test_only_so_many_tokens_enter_the_moments(
    monkeypatch: pytest.MonkeyPatch, bert: EncoderNetwork, batches: list[dict[str, Tensor]]
):
    monkeypatch.setattr("compressors.calibration.collect._LEAST_TOKENS", 10)
    monkeypatch.setattr("compressors.calibration.collect._TOKENS_PER_CHANNEL", 1)
    calibration = calibrate(bert, batches)
    assert calibration.at(0, "attention_in").count == 32
    assert calibration.at(0, "feed_forward_mid").count == calibration.tokens
    assert 32 < calibration.tokens < 64


def test_large_means_do_not_drown_the_spread():
    inputs = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 100.0, 1e3, 3e3])
    accumulator = Accumulator(4)
    for chunk in inputs.split(700):
        accumulator.add(chunk, torch.ones(len(chunk), dtype=torch.bool))
    expected = moments_of(inputs.double()).centred
    torch.testing.assert_close(accumulator.finish().moments().centred, expected, atol=20_000 * 1e-3, rtol=0)


def test_products_in_blocks_are_those_of_the_whole():
    inputs = torch.randn(300, 1100, generator=torch.Generator().manual_seed(0))
    accumulator = Accumulator(1100)
    accumulator.add(inputs, torch.ones(300, dtype=torch.bool))
    found = accumulator.finish().centred
    assert torch.equal(found, found.T)
    torch.testing.assert_close(found.double(), moments_of(inputs.double()).centred, atol=1e-2, rtol=0)


def test_bad_batches_are_refused(bert: EncoderNetwork):
    with pytest.raises(InvalidInputError, match="empty"):
        calibrate(bert, [])
    with pytest.raises(InvalidInputError, match="input_ids"):
        calibrate(bert, [{"input_ids": torch.zeros(1, 3, dtype=torch.int64)}])


def test_cache_keeps_within_its_bound_and_forgets_the_oldest():
    cache, computed = ByteCache(3 * 80), []

    def get(key: str) -> Tensor:
        return cache.get(key, Tensor, lambda: computed.append(key) or torch.zeros(10, dtype=torch.float64))

    for key in ("a", "b", "c", "a", "d", "a", "b"):
        get(key)
    assert computed == ["a", "b", "c", "d", "b"]
    assert cache.used <= cache.limit
    cache.get("large", Tensor, lambda: torch.zeros(1000))
    assert cache.used <= cache.limit
