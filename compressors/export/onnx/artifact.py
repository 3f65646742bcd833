"""What the emitter reports about a file that it wrote."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OnnxArtifact:
    """An ONNX file on disk.

    Attributes:
        path: The file.
        size_bytes: Its length.
        sha256: Its digest (hexadecimal).
        operators: How often each operator occurs in the graph as written; a runtime fuses further when it loads it.
    """

    path: Path
    size_bytes: int
    sha256: str
    operators: dict[str, int]
