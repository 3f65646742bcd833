"""Small files that are there completely or not at all."""

from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there: whoever is killed meanwhile leaves the old one or none."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)
