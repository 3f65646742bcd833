"""Direct ONNX emission: a recipe's graph is written from the network, without tracing a torch module."""

from compressors.export.onnx.artifact import OnnxArtifact
from compressors.export.onnx.emitter import write_onnx

__all__ = ["OnnxArtifact", "write_onnx"]
