"""Send files: small ones in one request, large ones in pieces that survive a lost connection."""

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from paretune.errors import ApiError
from paretune.outage import poll
from paretune.transport import ATTEMPTS
from paretune.transport import LONG_WORK_SECONDS
from paretune.transport import JsonObject
from paretune.transport import Transport

Progress = Callable[[int, int], None]
"""Called with (bytes sent, bytes in total)."""

PIECE_BYTES = 16 << 20
LARGE_BYTES = 32 << 20

MODEL_FILES = (
    "1_Pooling/config.json",
    "added_tokens.json",
    "config.json",
    "config_sentence_transformers.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors.index.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")


def model_files(folder: Path) -> list[str]:
    """Return the names of the files of a model folder that the service wants, small ones first.

    Raises:
        ApiError: The folder is not a model folder with safetensors weights.
    """
    if not folder.is_dir():
        raise ApiError(
            f"{folder} is not a folder.",
            hint="Give the folder that holds config.json and model.safetensors, or the id of an uploaded model.",
            code="invalid-model",
        )
    weights = sorted(path.name for path in folder.iterdir() if _WEIGHTS.fullmatch(path.name))
    if not weights:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".ckpt"})
        because = f" ({pickles[0]} is a pickle, which can run code when it is opened)" if pickles else ""
        raise ApiError(
            f"{folder} has no model.safetensors{because}.",
            hint="Convert the weights once, where you trust them: AutoModel.from_pretrained(folder)"
            ".save_pretrained(new_folder, safe_serialization=True).",
            code="invalid-model",
        )
    return [name for name in MODEL_FILES if (folder / name).is_file()] + weights


def complete(transport: Transport, path: str, body: JsonObject | None = None) -> JsonObject:
    """Say that everything has been sent, and return what it became; the service checks it first, which may take long.

    It does so once, however often it is asked: when the answer is lost, it is asked for again, for two minutes if the
    service is away and for an hour if it works.

    Raises:
        ApiError: What was sent is refused, or the service stays away.
        TimeoutError: The service works for longer than an hour.
    """
    return poll(
        lambda: transport.json("POST", f"{path}/complete", json=body, patient=True),
        lambda _answer: True,
        what=f"{path}/complete",
        url=transport.url,
        pause=0.0,
        timeout=LONG_WORK_SECONDS,
        works=True,
    )


class Sender:
    """Sends one file after another and counts the bytes of all."""

    def __init__(self, transport: Transport, total: int, progress: Progress | None) -> None:
        self._transport = transport
        self._total = total
        self._progress = progress
        self._sent = 0

    def _note(self, count: int) -> None:
        self._sent += count
        if self._progress is not None:
            self._progress(self._sent, self._total)

    def put(self, method: str, path: str, file: Path, params: dict[str, Any] | None = None) -> httpx.Response:
        """Send a small file as the body of one request."""
        response = self._transport.request(
            method, path, content=file.read_bytes(), params=params, create=method == "POST"
        )
        self._note(file.stat().st_size)
        return response

    def resumable(self, file: Path, *, kind: str, name: str, model_id: str | None = None) -> dict[str, Any]:
        """Send a file in pieces; after a lost connection it goes on where the service says.

        Returns:
            ``{"file": ..., "dataset": ...}``: what the upload became.
        """
        size = file.stat().st_size
        body = {"kind": kind, "name": name, "length": size, "model_id": model_id}
        upload = self._transport.json("POST", "/v1/uploads", json=body, create=True)
        path = f"/v1/uploads/{upload['id']}"
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            offset = 0
            while offset < size:
                piece = stream.read(PIECE_BYTES)
                if not piece:
                    raise ApiError(f"{file} became shorter while it was sent.", hint="Try again.")
                digest.update(piece)
                self._send_piece(path, offset, piece)
                offset += len(piece)
                self._note(len(piece))
        return complete(self._transport, path, {"sha256": digest.hexdigest()})

    def _send_piece(self, path: str, offset: int, piece: bytes) -> None:
        headers = {"Upload-Offset": str(offset)}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if attempt > 1:  # the answer was lost, not necessarily the piece
                    arrived = int(self._transport.request("HEAD", path).headers["upload-offset"])
                    if arrived == offset + len(piece):
                        return
                self._transport.request("PATCH", path, content=piece, headers=headers)
                return
            except ApiError as error:
                if attempt == ATTEMPTS or error.status not in {0, 409, 429, 502, 503, 504}:
                    raise
                time.sleep(0.3 * 2**attempt)
