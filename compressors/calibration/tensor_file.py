"""Writing a safetensors file one tensor after another, for what does not fit into memory as a whole."""

import json
import struct
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

_NAMES = {torch.float64: "F64", torch.int64: "I64", torch.float32: "F32"}
_ALIGNMENT = 8


@dataclass(frozen=True)
class Shape:
    """Of a tensor that will be written."""

    dtype: torch.dtype
    """float64, int64 or float32."""
    sizes: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return prod(self.sizes) * self.dtype.itemsize


def write_tensors(
    path: Path, metadata: Mapping[str, str], shapes: Mapping[str, Shape], tensors: Iterable[tuple[str, Tensor]]
) -> None:
    """Do as :func:`safetensors.torch.save_file`, but hold only one tensor. A kill leaves the old file or the new one.

    Args:
        path: The file; its folder is made.
        metadata: Of the file.
        shapes: Of every tensor, by name.
        tensors: All of them, in any order.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offsets: dict[str, int] = {}
    end = 0
    for name in sorted(shapes, key=lambda name: (-shapes[name].dtype.itemsize, name)):  # so that all are aligned
        shape = shapes[name]
        offsets[name], end = end, end + shape.nbytes
        header[name] = {"dtype": _NAMES[shape.dtype], "shape": shape.sizes, "data_offsets": (offsets[name], end)}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        start = file.tell()
        for name, tensor in tensors:
            assert Shape(tensor.dtype, tuple(tensor.shape)) == shapes[name]
            file.seek(start + offsets[name])
            tensor.contiguous().numpy().tofile(file)
    partial.replace(path)
