"""Hostile and broken models, each a valid model with one thing changed, and a word of the reason that must be given."""

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from tests.security.model_bytes import config
from tests.security.model_bytes import dump
from tests.security.model_bytes import header
from tests.security.model_bytes import model_files
from tests.security.model_bytes import safetensors
from tests.security.model_bytes import tensors
from tests.security.model_bytes import tokenizer

WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Hostile:
    """One upload that must be refused.

    Attributes:
        name: What it is.
        reason: A part of the explanation.
        files: All files of the model.
    """

    name: str
    reason: str
    files: dict[str, bytes] = field(repr=False)


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("touch /tmp/paretune-was-here",)


def all_cases() -> Iterator[Hostile]:
    """Every case."""
    yield from _formats()
    yield from _names()
    yield from _headers()
    yield from _configs()
    yield from _tokenizers()
    yield from _sentence_files()
    yield from _folders()


def _weights(name: str, reason: str, content: bytes) -> Hostile:
    return Hostile(name, reason, model_files(model__safetensors=content))


def _zip(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return stream.getvalue()


def _formats() -> Iterator[Hostile]:
    """Other formats under the name of the weights."""
    for protocol in range(6):
        yield _weights(f"pickle protocol {protocol}", "pickle", pickle.dumps(Payload(), protocol))
    torch_zip = _zip({"archive/data.pkl": pickle.dumps(Payload()), "archive/version": b"3"})
    yield _weights("torch.save zip", "zip", torch_zip)
    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps(Payload(), 2)
    yield _weights("torch.save before 1.6", "pickle", legacy)
    yield _weights("tar with a link", "archive", _tar())
    for name, magic in (
        ("gzip", b"\x1f\x8b\x08\x00"),
        ("bzip2", b"BZh9"),
        ("xz", b"\xfd7zXZ\x00"),
        ("zstd", b"\x28\xb5\x2f\xfd"),
        ("hdf5", b"\x89HDF\r\n\x1a\n"),
        ("npy", b"\x93NUMPY\x01\x00"),
        ("elf", b"\x7fELF\x02\x01\x01"),
        ("script", b"#!/bin/sh\nrm -rf /\n"),
        ("gguf", b"GGUF\x03\x00\x00\x00"),
        ("git lfs pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    ):
        yield _weights(f"{name} as weights", "model.safetensors is", magic + b"\0" * 600)
    yield _weights("html error page", "not a safetensors file", b"<!DOCTYPE html><html><body>404</body></html>")
    yield _weights("onnx", "not a safetensors file", b"\x08\x07\x12\x07pytorch" + b"\0" * 100)
    yield Hostile("pickle as config", "pickle", model_files(config__json=pickle.dumps(Payload())))
    yield Hostile("pickle as tokenizer", "pickle", model_files(tokenizer__json=pickle.dumps(Payload())))
    yield Hostile("zip as vocabulary", "zip", model_files(vocab__txt=_zip({"a": b"b"})))


def _names() -> Iterator[Hostile]:
    """Files under names that are not on the list."""
    for name, reason in (
        ("pytorch_model.bin", "pickle"),
        ("model.pt", "pickle"),
        ("rng_state.pth", "pickle"),
        ("optimizer.pkl", "pickle"),
        ("weights.npz", "pickle"),
        ("tf_model.h5", "format"),
        ("flax_model.msgpack", "format"),
        ("model.onnx", "format"),
        ("model.onnx.data", "not a file"),
        ("model.gguf", "format"),
        ("model.zip", "archive"),
        ("model.tar.gz", "archive"),
        ("modeling_bert.py", "code"),
        ("setup.sh", "code"),
        ("libkernel.so", "code"),
        (".env", "not a file"),
        ("weights.safetensors", "not a name"),
        ("model-1-of-2.safetensors", "not a name"),
        ("Config.json", "not a file"),
        ("config.json ", "not a file"),
        ("config.json%00.txt", "not a file"),
        ("..%2f..%2fconfig.json", "not a file"),
        ("%2fetc%2fpasswd", "not a file"),
        ("2_Dense/config.json", "not a file"),
        ("sub/config.json", "not a file"),
        ("c%CC%A7onfig.json", "not a file"),
    ):
        yield Hostile(f"file named {name}", reason, {name: b"{}"} | model_files())


def _changed(**changes: Any) -> bytes:
    """The header of the valid weights with changes to the word embeddings."""
    described = header(tensors())
    described[WORD_EMBEDDINGS] = described[WORD_EMBEDDINGS] | changes
    return safetensors(described)


def _with_length(length: int) -> bytes:
    return length.to_bytes(8, "little") + safetensors()[8:]


def _raw_header(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def _headers() -> Iterator[Hostile]:
    """Safetensors files that contradict themselves."""
    valid = safetensors()
    yield _weights("empty file", "0 bytes", b"")
    yield _weights("eight bytes", "8 bytes", b"\xff" * 8)
    yield _weights("header length of 2**64 - 1", "truncated", _with_length(2**64 - 1))
    yield _weights("header length bomb", "truncated", _with_length(100 << 20))
    yield _weights("header longer than the file", "truncated", _with_length(len(valid)))
    yield _weights("header too short", "JSON", _with_length(20))
    yield _weights("header length zero", "not JSON", _with_length(0))
    yield _weights("truncated data", "truncated", valid[:-1])
    yield _weights("half of the file", "truncated", valid[: len(valid) // 2])
    yield _weights("bytes after the last tensor", "after its last tensor", safetensors(extra=16))
    yield _weights("header is not JSON", "JSON", _raw_header(b"{not json}"))
    yield _weights("header is a list", "not JSON", _raw_header(b"[1, 2, 3]"))
    yield _weights("header is not UTF-8", "UTF-8", _raw_header(b'{"\xff\xfe": 1}'))
    yield _weights(
        "deeply nested header", "nested too deeply", _raw_header(b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}")
    )
    yield _weights("no tensors", "no tensors", _raw_header(b'{"__metadata__": {}}'))
    yield _weights(
        "metadata is not strings", "__metadata__", safetensors(header(tensors()) | {"__metadata__": {"a": 1}})
    )
    yield _weights("metadata is a list", "__metadata__", safetensors(header(tensors()) | {"__metadata__": [1]}))
    yield _weights("unknown dtype", "unknown dtype", _changed(dtype="F31"))
    yield _weights("dtype is a number", "unknown dtype", _changed(dtype=32))
    yield _weights("sub-byte dtype", "unknown dtype", _changed(dtype="F4"))
    yield _weights("negative dimension", "impossible shape", _changed(shape=[-7, 8]))
    yield _weights("fractional dimension", "impossible shape", _changed(shape=[7.0, 8]))
    yield _weights("boolean dimension", "impossible shape", _changed(shape=[True, 56]))
    yield _weights("huge dimension", "impossible shape", _changed(shape=[2**63, 2]))
    yield _weights("shape that overflows 64 bits", "takes", _changed(shape=[2**32, 2**32]))
    yield _weights("too many dimensions", "impossible shape", _changed(shape=[1] * 64))
    yield _weights("shape does not fit the bytes", "takes", _changed(shape=[7, 9]))
    yield _weights("negative offset", "impossible data_offsets", _changed(data_offsets=[-224, 0]))
    yield _weights("reversed offsets", "span -224", _changed(data_offsets=[224, 0]))
    yield _weights("offset of 2**62", "impossible data_offsets", _changed(data_offsets=[2**62, 2**62 + 224]))
    yield _weights("one offset", "impossible data_offsets", _changed(data_offsets=[0]))
    yield _weights("extra key", "not described", _changed(location="../../etc/passwd"))
    overlapping = header({"a": ("F32", [4]), "b": ("F32", [4])})
    overlapping["b"]["data_offsets"] = [8, 24]
    yield _weights("overlapping tensors", "overlaps", safetensors(overlapping))
    gap = header({"a": ("F32", [4]), "b": ("F32", [4])})
    gap["b"]["data_offsets"] = [20, 36]
    yield _weights("gap between tensors", "gap", safetensors(gap))
    aliased = header({"a": ("F32", [4]), "b": ("F32", [4])})
    aliased["b"]["data_offsets"] = [0, 16]
    yield _weights("two tensors on the same bytes", "overlaps", safetensors(aliased))
    for name in ("a\0b", "", "x" * 5000, "a\nb", "\u202ebias"):
        yield _weights(f"tensor named {name[:8]!r}", "unusable name", safetensors(header({name: ("F32", [4])})))
    twice = (
        json.dumps(header({"a": ("F32", [4])}))[:-1].encode()
        + b', "a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    )
    yield _weights("tensor given twice", "given twice", _raw_header(twice, b"\0" * 16))


def _config(name: str, reason: str, **changes: Any) -> Hostile:
    return Hostile(f"config: {name}", reason, model_files(config__json=dump(config(**changes))))


def _configs() -> Iterator[Hostile]:
    """Configurations that lead to code, files, networks, or exhausted memory."""
    yield _config("auto_map", "auto_map", auto_map={"AutoModel": "evil.Model"})
    yield _config("nested auto_map", "auto_map", task_specific_params={"x": {"auto_map": {"AutoModel": "a.B"}}})
    yield _config("trust_remote_code", "trust_remote_code", trust_remote_code=True)
    yield _config("custom_pipelines", "custom_pipelines", custom_pipelines={"p": {"impl": "a.B"}})
    yield _config("attention from a hub (CVE-2026-4372)", "_attn", _attn_implementation_internal="evil/kernel")
    yield _config("private attention key", "_attn_implementation", _attn_implementation="flash")
    yield _config("attention kernel", "attn_implementation", attn_implementation="evil/kernel")
    yield _config("weights from another file", "transformers_weights", transformers_weights="../../secret.bin")
    yield _config("quantisation", "quantization_config", quantization_config={"quant_method": "gptq"})
    yield _config("unknown key", "frobnicate", frobnicate=1)
    yield _config("URL", "URL", finetuning_task="https://evil.example/x")
    yield _config("unknown model type", "model_type", model_type="lightglue")
    yield _config("decoder model type", "gpt2", model_type="gpt2", architectures=["GPT2LMHeadModel"])
    yield _config("model type is a list", "model_type", model_type=["bert"])
    yield _config("no model type", "model_type", model_type=...)
    yield _config("architecture of another family", "architectures", architectures=["RobertaModel"])
    yield _config("architecture that is no class", "architectures", architectures=["Bert.__init__"])
    yield _config("two architectures", "architectures", architectures=["BertModel", "BertForMaskedLM"])
    yield _config("memory bomb: hidden size", "hidden_size", hidden_size=10**9)
    yield _config("memory bomb: layers", "num_hidden_layers", num_hidden_layers=10**6)
    yield _config("memory bomb: vocabulary", "vocab_size", vocab_size=10**12)
    yield _config("memory bomb: positions", "max_position_embeddings", max_position_embeddings=10**10)
    yield _config("memory bomb: labels", "id2label", id2label={str(i): "x" for i in range(20_000)})
    yield _config("zero heads", "num_attention_heads", num_attention_heads=0)
    yield _config("negative layers", "num_hidden_layers", num_hidden_layers=-1)
    yield _config("fractional layers", "num_hidden_layers", num_hidden_layers=2.5)
    yield _config("layers as text", "num_hidden_layers", num_hidden_layers="2")
    yield _config("heads do not divide", "multiple", num_attention_heads=3)
    yield _config("activation that is no activation", "hidden_act", hidden_act="__import__('os')")
    yield _config("dtype that is no dtype", "dtype", dtype="save")
    yield _config("epsilon of zero", "layer_norm_eps", layer_norm_eps=0)
    yield _config("decoder", "is_decoder", is_decoder=True)
    yield _config("relative positions", "position_embedding_type", position_embedding_type="relative_key")
    yield _config("pruned heads", "pruned_heads", pruned_heads={"0": [1]})
    yield _config("tokenizer class", "tokenizer_class", tokenizer_class="EvilTokenizer")
    yield _config("labels with gaps", "id2label", id2label={"0": "a", "7": "b"})
    yield _config("labels that are no text", "id2label", id2label={"0": {"a": 1}, "1": "b"})
    yield _config("endless text", "too long", finetuning_task="x" * 100_000)
    for name, reason, content in (
        ("NaN", "NaN is not JSON", b'{"model_type": "bert", "layer_norm_eps": NaN}'),
        ("duplicate key", "given twice", b'{"model_type": "bert", "model_type": "evil"}'),
        ("not an object", "not an object", b'["bert"]'),
        ("number of thousands of digits", "digits", b'{"model_type": "bert", "vocab_size": ' + b"9" * 10_000 + b"}"),
        ("deep nesting", "nested too deeply", b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
        ("megabytes", "larger than 1048576", b'{"model_type": "bert", "prefix": "' + b"x" * (2 << 20) + b'"}'),
        ("UTF-16", "UTF-8", '{"model_type": "bert"}'.encode("utf-16")),
        ("nothing", "not valid JSON", b""),
    ):
        yield Hostile(f"config: {name}", reason, model_files(config__json=content))


def _tokenizers() -> Iterator[Hostile]:
    """Tokenizer files that refer to code or other files, or are damaged."""
    for key, value in (
        ("auto_map", {"AutoTokenizer": ["evil.T", None]}),
        ("tokenizer_file", "/etc/passwd"),
        ("vocab_file", "../../../etc/passwd"),
        ("chat_template", "{{ cycler.__init__.__globals__ }}"),
        ("trust_remote_code", True),
    ):
        content = dump({"tokenizer_class": "BertTokenizer", key: value})
        yield Hostile(f"tokenizer config: {key}", key, model_files(tokenizer_config__json=content))
    strange = dump({"tokenizer_class": "EvilTokenizer"})
    yield Hostile("tokenizer config: class", "tokenizer class", model_files(tokenizer_config__json=strange))
    yield Hostile("tokenizer is a list", "object", model_files(tokenizer__json=b"[]"))
    yield Hostile("tokenizer without a model", "tokenizer model", model_files(tokenizer__json=b"{}"))
    unknown = tokenizer() | {"model": {"type": "Lua", "vocab": {"a": 0}}}
    yield Hostile("tokenizer of unknown type", "tokenizer model", model_files(tokenizer__json=dump(unknown)))
    empty = tokenizer() | {"model": {"type": "WordLevel", "vocab": {}}}
    yield Hostile("tokenizer without vocabulary", "vocabulary", model_files(tokenizer__json=dump(empty)))
    yield Hostile("truncated tokenizer", "JSON", model_files(tokenizer__json=dump(tokenizer())[:-5]))
    yield Hostile("vocabulary with NUL", "one entry a line", model_files(vocab__txt=b"a\0b\n"))
    yield Hostile("vocabulary in one line", "one entry a line", model_files(vocab__txt=b"x" * 100_000))
    yield Hostile("vocabulary in UTF-16", "UTF-8", model_files(vocab__txt="wörter".encode("utf-16")))
    yield Hostile("vocabulary with text ids", "numbers", model_files(vocab__json=dump({"a": "b"})))


def _sentence_files() -> Iterator[Hostile]:
    """Sentence-embedding modules that are code or not supported."""
    for kind, path in (
        ("os.system", ""),
        ("evil_package.Module", ""),
        ("sentence_transformers.models.Dense", "2_Dense"),
        ("sentence_transformers.models.Pooling", "../../elsewhere"),
    ):
        content = dump([{"idx": 0, "name": "0", "path": path, "type": kind}])
        yield Hostile(f"module {kind} at {path!r}", "not supported", model_files(modules__json=content))
    yield Hostile("modules are no list", "list", model_files(modules__json=b"{}"))
    files = model_files() | {"1_Pooling/config.json": dump({"pooling_mode_max_tokens": True})}
    yield Hostile("max pooling", "pooling_mode_max_tokens", files)


def _folders() -> Iterator[Hostile]:
    """Files that are fine alone and not together."""
    files = model_files()
    for missing, reason in (
        ("config.json", "config.json"),
        ("model.safetensors", "weights"),
        ("tokenizer.json", "tokenizer"),
    ):
        rest = {name: content for name, content in files.items() if name != missing}
        yield Hostile(f"without {missing}", reason, rest)
    yield Hostile(
        "more layers than weights", "encoder layers", model_files(config__json=dump(config(num_hidden_layers=12)))
    )
    yield Hostile("other vocabulary", "word_embeddings", model_files(config__json=dump(config(vocab_size=30522))))
    yield Hostile(
        "more labels than outputs",
        "outputs",
        model_files(config__json=dump(config(id2label={str(i): "x" for i in range(9)}, label2id=...))),
    )
    quantised = tensors() | {"bert.pooler.dense.weight": ("I8", [8, 8])}
    yield _weights("quantised weights", "quantised", safetensors(header(quantised)))
    part = safetensors()
    yield Hostile(
        "one shard of two",
        "Shards",
        {"model-00001-of-00002.safetensors": part} | {n: c for n, c in files.items() if n != "model.safetensors"},
    )
    yield Hostile("shards beside the whole", "both", files | {"model-00001-of-00001.safetensors": part})
    shards = {f"model-0000{i}-of-00002.safetensors": part for i in (1, 2)}
    yield Hostile(
        "the same tensor in two shards", "is in", shards | {n: c for n, c in files.items() if n != "model.safetensors"}
    )
    index = dump({"weight_map": {"a": "../../../etc/passwd"}})
    yield Hostile(
        "index that points elsewhere", "does not describe", model_files(model__safetensors__index__json=index)
    )
