"""Write a large ONNX file without copying its weights.

A protobuf message is the concatenation of its fields, in any order, so the weights are streamed from the arrays that
hold them between the small parts that the protobuf library encodes.
"""

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from onnx import helper

from infra.errors import TooLargeError

_GRAPH_FIELD = 7
_INITIALIZER_FIELD = 5
_RAW_DATA_FIELD = 9
_LENGTH_DELIMITED = 2
_LIMIT = 2**31 - 1


def write_model(model: onnx.ModelProto, initializers: dict[str, NDArray[Any]], path: Path) -> tuple[int, str]:
    """Write ``model`` with ``initializers`` added to its graph.

    Args:
        model: A model whose graph has no initialisers.
        initializers: Arrays by name, written in this order.
        path: The file to write; it appears only when it is complete.

    Returns:
        ``(size in bytes, sha256)`` of the file.

    Raises:
        TooLargeError: The file would exceed the 2 GiB that a protobuf message can hold.
    """
    tensors = [(_tensor_prefix(name, array), np.ascontiguousarray(array)) for name, array in initializers.items()]
    prefixes = [_key(_INITIALIZER_FIELD, len(prefix) + _nbytes(array)) + prefix for prefix, array in tensors]
    graph = model.graph.SerializeToString(deterministic=True)
    length = len(graph) + sum(map(len, prefixes)) + sum(_nbytes(array) for _, array in tensors)
    envelope = onnx.ModelProto()
    envelope.CopyFrom(model)
    envelope.ClearField("graph")
    head = envelope.SerializeToString(deterministic=True) + _key(_GRAPH_FIELD, length) + graph
    size = len(head) + length - len(graph)
    if size > _LIMIT:
        raise TooLargeError(
            f"The ONNX file would have {size / 2**30:.1f} GiB; one file holds 2 GiB.",
            hint="Use a smaller model, or fewer bits for the embedding tables.",
        )
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")  # another process may write the same model
    try:
        with partial.open("wb") as file:
            for chunk in _chunks(head, prefixes, tensors):
                file.write(chunk)
                digest.update(chunk)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return size, digest.hexdigest()


def _chunks(
    head: bytes, prefixes: list[bytes], tensors: list[tuple[bytes, NDArray[Any]]]
) -> Iterator[bytes | memoryview]:
    yield head
    for prefix, (_, array) in zip(prefixes, tensors, strict=True):
        yield prefix
        yield _raw(array)


def _nbytes(array: NDArray[Any]) -> int:
    """Bytes of the array in the file; two 4-bit integers share one."""
    return (array.size + 1) // 2 if array.dtype == ml_dtypes.int4 else array.nbytes


def _raw(array: NDArray[Any]) -> memoryview:
    if array.dtype != ml_dtypes.int4:
        return array.reshape(-1).view(np.uint8).data
    nibbles = np.zeros(2 * _nbytes(array), np.uint8)
    nibbles[: array.size] = array.reshape(-1).astype(np.int8).view(np.uint8) & 0xF
    return (nibbles[0::2] | nibbles[1::2] << 4).data


def _tensor_prefix(name: str, array: NDArray[Any]) -> bytes:
    """Everything of a ``TensorProto`` up to the bytes of its values."""
    tensor = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
    encoded: bytes = tensor.SerializeToString(deterministic=True)
    return encoded + _key(_RAW_DATA_FIELD, _nbytes(array))


def _key(field: int, length: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
