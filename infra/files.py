"""Small files that are there completely or not at all."""

from pathlib import Path
from uuid import uuid4


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there: whoever is killed meanwhile leaves the old one or none."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")  # two processes may write the same file
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
