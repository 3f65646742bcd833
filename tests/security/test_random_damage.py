"""Whatever a file holds, verifying it either accepts it or raises the one documented error."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from infra.errors import InvalidModelError
from infra.uploads.config_json import check_config
from infra.uploads.magic import foreign_format
from infra.uploads.model_folder import FileSource
from infra.uploads.model_folder import verify_file
from infra.uploads.safetensors_header import MAX_HEADER_BYTES
from infra.uploads.safetensors_header import read_header
from tests.security.model_bytes import config
from tests.security.model_bytes import header
from tests.security.model_bytes import safetensors
from tests.security.model_bytes import tensors

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
LIMIT = 1 << 30


def verify(name: str, content: bytes) -> bool:
    """Whether the file is accepted; any other error than the documented one fails the test."""
    refusal: InvalidModelError | None = None
    try:
        verify_file(name, FileSource(len(content), lambda: io.BytesIO(content)), LIMIT)
    except InvalidModelError as error:
        refusal = error
    assert refusal is None or (refusal.message and refusal.hint)
    return refusal is None


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 5000), value=st.integers(0, 255), cut=st.none() | st.integers(0, 5000))
def test_flipped_and_missing_bytes(position: int, value: int, cut: int | None) -> None:
    content = bytearray(safetensors())
    content[position] = value
    if cut is not None:
        del content[cut:]
    accepted = verify("model.safetensors", bytes(content))
    assert not (accepted and cut is not None)


@settings(max_examples=200, deadline=None)
@given(entry=JSON)
def test_any_json_as_the_description_of_a_tensor(entry: object) -> None:
    text = json.dumps({"tensor": entry, "__metadata__": {}}).encode()
    assert not verify("model.safetensors", len(text).to_bytes(8, "little") + text + b"\0" * 64)


@settings(max_examples=300, deadline=None)
@given(key=st.sampled_from(sorted(config())), value=JSON)
def test_any_json_as_a_value_of_the_config(key: str, value: object) -> None:
    try:
        facts = check_config(json.dumps(config() | {key: value}).encode())
    except InvalidModelError:
        return
    assert 1 <= facts.layers <= 128
    assert 1 <= facts.hidden_size <= 16_384
    assert facts.hidden_size % facts.heads == 0
    assert 1 <= facts.vocabulary_size <= 2_000_000


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(
        ["tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling/config.json", "vocab.json"]
    ),
    value=JSON,
)
def test_any_json_as_a_small_file(name: str, value: object) -> None:
    verify(name, json.dumps(value).encode())


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(["model.safetensors", "config.json", "vocab.txt", "tokenizer.json"]), content=st.binary())
def test_any_bytes(name: str, content: bytes) -> None:
    accepted = verify(name, content)
    assert not (accepted and name != "vocab.txt")


@pytest.mark.parametrize("length", [0x10480, 0x20580, 0x8B1F, 0x2123, 0x10028])
def test_a_header_whose_length_looks_like_another_format_is_accepted(length: int) -> None:
    described = header(tensors()) | {"__metadata__": {"padding": ""}}
    described["__metadata__"]["padding"] = "x" * (length - len(json.dumps(described)))
    content = safetensors(described)
    assert foreign_format(content[:8] + b"\n.") is not None
    assert verify("model.safetensors", content)


def test_a_header_is_read_only_up_to_the_limit() -> None:
    class Endless(io.RawIOBase):
        total = 0

        def read(self, size: int = -1) -> bytes:
            assert size >= 0
            self.total += size
            return (2 * MAX_HEADER_BYTES).to_bytes(8, "little") + b"{" * (size - 8)

    stream = Endless()
    with pytest.raises(InvalidModelError):
        read_header("model.safetensors", stream, 1 << 40)  # type: ignore[arg-type]
    assert stream.total < 1 << 20
