"""Direct ONNX emission: a recipe's graph is written from the network, without tracing a torch module."""

from compressors.export.onnx.artifact import OnnxArtifact
from compressors.export.onnx.ranges import collect_ranges
from compressors.export.onnx.writer import write_onnx

__all__ = ["OnnxArtifact", "collect_ranges", "write_onnx"]
