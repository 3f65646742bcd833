"""Recognise dangerous or foreign formats by their first bytes, whatever the file is called."""

from infra.errors import InvalidModelError
from infra.uploads.filenames import CONVERT_HINT

HEAD_BYTES = 512
"""How much of a file :func:`check_magic` wants to see."""

_PICKLE = "a pickle, which can run code when it is opened"
_ARCHIVE = "an archive"
_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive (the format of torch.save), which can hold a pickle"),
    (b"PK\x05\x06", "a zip archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstandard data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)"),
    (b"\x93NUMPY", "a NumPy array, which can hold a pickle"),
    (b"\x7fELF", "an executable"),
    (b"MZ\x90\x00", "an executable"),
    (b"\xca\xfe\xba\xbe", "an executable"),
    (b"\xcf\xfa\xed\xfe", "an executable"),
    (b"#!", "a script"),
    (b"GGUF", "a GGUF file (llama.cpp)"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)
_TORCH_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"


def foreign_format(head: bytes) -> str | None:
    """Return what the bytes are, in words, if they are a format that is never accepted; ``None`` otherwise.

    Args:
        head: The first bytes of the file, :data:`HEAD_BYTES` or all there are.
    """
    if len(head) >= 2 and head[0] == 0x80 and head[1] <= 5:  # PROTO opcode, protocols 0 to 5
        return _PICKLE
    if _TORCH_LEGACY_MAGIC in head[:64]:
        return "a torch.save file of the old kind: a pickle, which can run code when it is opened"
    if head[:1] in {b"c", b"("} and b"\n" in head[:200] and head.rstrip().endswith((b".", b"R", b"o")):
        return _PICKLE  # protocol 0: GLOBAL or MARK, text lines, STOP
    if head[257:262] == b"ustar":
        return _ARCHIVE
    return next((words for prefix, words in _PREFIXES if head.startswith(prefix)), None)


def check_magic(name: str, head: bytes) -> None:
    """Refuse a file whose content is a foreign format.

    Raises:
        InvalidModelError: Naming the file and what it really is.
    """
    words = foreign_format(head)
    if words is None:
        return
    if "LFS" in words:
        hint = "Fetch the real file first: git lfs pull."
    elif "pickle" in words or name.endswith(".safetensors"):
        hint = CONVERT_HINT
    else:
        hint = "Upload the file itself, uncompressed."
    raise InvalidModelError(f"{name} is {words}.", hint=hint)
