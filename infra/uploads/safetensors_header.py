"""The header of a safetensors file, checked completely without the library.

Layout: 8 bytes little-endian length N of the header, N bytes of JSON ``{name: {dtype, shape, data_offsets}}``
(``__metadata__`` holds strings), then the data. Offsets are relative to the end of the header.
"""

from dataclasses import dataclass
from math import prod
from typing import Any
from typing import BinaryIO

from infra.errors import InvalidModelError
from infra.uploads import json_file
from infra.uploads.filenames import CONVERT_HINT
from infra.uploads.magic import HEAD_BYTES
from infra.uploads.magic import check_magic

MAX_HEADER_BYTES = 4 << 20
MAX_TENSORS = 20_000
MAX_NAME_LENGTH = 400
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 1 << 40

ITEM_BYTES: dict[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}

_SAVE_AGAIN = "Save the model again with save_pretrained(); the file was damaged or made by hand."


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header describes it."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """Number of values."""
        return prod(self.shape)


def read_header(name: str, stream: BinaryIO, size: int) -> dict[str, TensorInfo]:
    """Read and check the header of a safetensors file.

    Args:
        name: File name for messages.
        stream: Positioned at the start; only the header is read.
        size: Size of the whole file in bytes.

    Returns:
        Every tensor by name.

    Raises:
        InvalidModelError: The file is another format, truncated, or its header contradicts itself.
    """
    start = stream.read(HEAD_BYTES)
    if start[8:9] != b"{":  # the length before it may look like the magic number of anything
        check_magic(name, start)
    if len(start) < 10:
        raise InvalidModelError(
            f"{name} has {size} bytes; a safetensors file has at least 10.", hint="Upload the file again."
        )
    length = int.from_bytes(start[:8], "little")
    if length > size - 8:
        if start[8:9] == b"{":
            raise InvalidModelError(
                f"{name} is truncated: its header alone has {length} bytes, the file has {size}.",
                hint="Upload the file again; the transfer or an earlier copy was cut short.",
            )
        raise InvalidModelError(f"{name} is not a safetensors file.", hint=CONVERT_HINT)
    if length > MAX_HEADER_BYTES:
        raise InvalidModelError(f"The header of {name} claims {length} bytes.", hint=_SAVE_AGAIN)
    header = start[8:] + stream.read(max(0, length - len(start) + 8))
    header = header[:length]
    if header[:1] != b"{":
        raise InvalidModelError(f"{name} is not a safetensors file: its header is not JSON.", hint=CONVERT_HINT)
    entries = json_file.parse_object(f"{name} (header)", header, InvalidModelError)
    _check_metadata(name, entries.pop("__metadata__", {}))
    if not entries:
        raise InvalidModelError(f"{name} holds no tensors.", hint=_SAVE_AGAIN)
    if len(entries) > MAX_TENSORS:
        raise InvalidModelError(f"{name} holds {len(entries)} tensors; at most {MAX_TENSORS}.", hint=_SAVE_AGAIN)
    tensors = {tensor: _tensor(name, tensor, entry) for tensor, entry in entries.items()}
    _check_layout(name, tensors, size - 8 - length)
    return tensors


def _check_metadata(name: str, metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InvalidModelError(f"__metadata__ of {name} is not a map of strings.", hint=_SAVE_AGAIN)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ELEMENTS


def _tensor(name: str, tensor: str, entry: Any) -> TensorInfo:
    where = f"Tensor {tensor[:80]!r} of {name}"
    if not tensor or len(tensor) > MAX_NAME_LENGTH or not tensor.isprintable() or not tensor.isascii():
        raise InvalidModelError(f"{name} has a tensor with an unusable name ({tensor[:80]!r}).", hint=_SAVE_AGAIN)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InvalidModelError(f"{where} is not described by dtype, shape and data_offsets.", hint=_SAVE_AGAIN)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise InvalidModelError(f"{where} has the unknown dtype {str(dtype)[:40]!r}.", hint=_SAVE_AGAIN)
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(_is_count, shape)):
        raise InvalidModelError(f"{where} has an impossible shape.", hint=_SAVE_AGAIN)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise InvalidModelError(f"{where} has impossible data_offsets.", hint=_SAVE_AGAIN)
    info = TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])
    expected = info.elements * ITEM_BYTES[dtype]
    if info.end - info.start != expected:
        raise InvalidModelError(
            f"{where} is {dtype} {list(info.shape)}, which takes {expected} bytes, "
            f"but its data_offsets span {info.end - info.start}.",
            hint=_SAVE_AGAIN,
        )
    return info


def _check_layout(name: str, tensors: dict[str, TensorInfo], data_bytes: int) -> None:
    """Ranges must follow one another without gap or overlap and end where the file ends."""
    position = 0
    for tensor, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            word = "overlaps another tensor" if info.start < position else "leaves a gap before it"
            raise InvalidModelError(f"Tensor {tensor[:80]!r} of {name} {word}.", hint=_SAVE_AGAIN)
        position = info.end
    if position > data_bytes:
        raise InvalidModelError(
            f"{name} is truncated: its tensors need {position} bytes of data, the file has {data_bytes}.",
            hint="Upload the file again; the transfer or an earlier copy was cut short.",
        )
    if position < data_bytes:
        raise InvalidModelError(f"{name} has {data_bytes - position} bytes after its last tensor.", hint=_SAVE_AGAIN)
