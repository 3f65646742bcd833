"""Checks downloaded models outside of the service: what the files say when a user opens them."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

import paretune

ROUNDS = 40
SEQUENCE_LENGTH = 128


@dataclass(frozen=True)
class Verification:
    """Agreement with the dense model (mean cosine over texts) and speed (dense time / compressed time)."""

    onnx_cosine: float
    torch_cosine: float
    speedup: float


def verify(onnx: Path, compressed: Path, dense: Path, model: Path, texts: list[str]) -> Verification:
    """Load both downloads and compare them with the dense model.

    Args:
        onnx: Folder of the ONNX download.
        compressed: Folder of the torch download.
        dense: Folder of the dense ONNX download, for timing.
        model: Hugging Face folder of the dense model.
        texts: Texts that the job has not seen.
    """
    session = _session(onnx / "model.onnx")
    module = paretune.load(compressed)
    reference = _dense_embeddings(model, texts)
    feeds = [_encode(onnx / "tokenizer.json", text) for text in texts]
    names = {value.name for value in session.get_inputs()}
    from_onnx = [session.run(None, {k: v for k, v in feed.items() if k in names})[0][0] for feed in feeds]
    with torch.inference_mode():
        from_torch = [
            module(**{name: torch.from_numpy(array) for name, array in feed.items() if name in names})[0].numpy()
            for feed in feeds
        ]
    return Verification(
        onnx_cosine=_mean_cosine(from_onnx, reference),
        torch_cosine=_mean_cosine(from_torch, reference),
        speedup=_interleaved_speedup(session, _session(dense / "model.onnx")),
    )


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _encode(tokenizer: Path, text: str) -> dict[str, NDArray[np.int64]]:
    encoder = Tokenizer.from_file(str(tokenizer))
    encoder.no_padding()
    encoded = encoder.encode(text)
    columns = {
        "input_ids": encoded.ids,
        "attention_mask": encoded.attention_mask,
        "token_type_ids": encoded.type_ids,
    }
    return {name: np.array([values], dtype=np.int64) for name, values in columns.items()}


def _dense_embeddings(model: Path, texts: list[str]) -> list[NDArray[np.float32]]:
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(model, trust_remote_code=False, local_files_only=True).eval()
    embeddings = []
    with torch.inference_mode():
        for text in texts:
            feed = _encode(model / "tokenizer.json", text)
            hidden = encoder(**{name: torch.from_numpy(array) for name, array in feed.items()}).last_hidden_state[0]
            embeddings.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy())
    return embeddings


def _mean_cosine(left: list[Any], right: list[Any]) -> float:
    def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    return statistics.fmean(cosine(a, b) for a, b in zip(left, right, strict=True))


def _interleaved_speedup(candidate: onnxruntime.InferenceSession, dense: onnxruntime.InferenceSession) -> float:
    """Median over rounds of dense time / candidate time at 1 x 128, in random order."""
    tokens = np.full((1, SEQUENCE_LENGTH), 1000, dtype=np.int64)
    everything = {
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
        "token_type_ids": np.zeros_like(tokens),
    }

    def run(session: onnxruntime.InferenceSession) -> float:
        feed = {value.name: everything[value.name] for value in session.get_inputs()}
        started = time.perf_counter()
        session.run(None, feed)
        return time.perf_counter() - started

    ratios = []
    shuffle = np.random.default_rng(0)
    for _ in range(ROUNDS):
        pair = [candidate, dense] if shuffle.random() < 0.5 else [dense, candidate]
        seconds = {id(session): run(session) for session in pair}
        ratios.append(seconds[id(dense)] / seconds[id(candidate)])
    return statistics.median(ratios[5:])
