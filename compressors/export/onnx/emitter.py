"""From a network to the nodes of its graph."""

import onnx
from onnx import TensorProto
from onnx import helper

from compressors.export.onnx.attention import emit_attention
from compressors.export.onnx.context import Context
from compressors.export.onnx.embeddings import emit_embeddings
from compressors.export.onnx.embeddings import has_token_types
from compressors.export.onnx.feed_forward import emit_feed_forward
from compressors.export.onnx.heads import emit_classification
from compressors.export.onnx.heads import emit_first_token
from compressors.export.onnx.heads import emit_pooling
from compressors.export.onnx.heads import reads_first_token
from compressors.export.onnx.normalization import emit_norm
from compressors.export.onnx.normalization import emit_residual_norm
from compressors.network import ClassificationHead
from compressors.network import EncoderNetwork
from compressors.network import Layer


def emit_network(context: Context, network: EncoderNetwork) -> None:
    """Write the whole encoder, from the embeddings to the output of its task head."""
    hidden = emit_embeddings(context, network.embeddings, network.max_sequence_length)
    cut = _first_token_layer(network) if context.graph.first_token_head else None
    for number, layer in enumerate(network.layers):
        hidden = _emit_layer(context, hidden, layer, f"layer.{layer.index}", first_only=number == cut)
    if reads_first_token(network.head) and cut is None:
        hidden = emit_first_token(context, hidden, "head")
    if isinstance(network.head, ClassificationHead):
        emit_classification(context, hidden, network.head, network.hidden_size)
    else:
        emit_pooling(context, hidden, network.head, network.hidden_size)


def _first_token_layer(network: EncoderNetwork) -> int | None:
    """The last layer that looks at other tokens: from its queries on, only the first token is needed."""
    if not reads_first_token(network.head):
        return None
    attending = [number for number, layer in enumerate(network.layers) if layer.attention is not None]
    return attending[-1] if attending else None


def _emit_layer(context: Context, hidden: str, layer: Layer, name: str, *, first_only: bool) -> str:
    queries = emit_first_token(context, hidden, name) if first_only else hidden
    if layer.attention is None:
        hidden = emit_norm(context, queries, layer.attention_norm, f"{name}.attention_norm")
    else:
        branch = emit_attention(context, hidden, queries, layer.attention, f"{name}.attention")
        hidden = emit_residual_norm(context, queries, branch, layer.attention_norm, f"{name}.attention_norm")
    if layer.feed_forward is None:
        return emit_norm(context, hidden, layer.feed_forward_norm, f"{name}.feed_forward_norm")
    branch = emit_feed_forward(context, hidden, layer.feed_forward, f"{name}.feed_forward")
    return emit_residual_norm(context, hidden, branch, layer.feed_forward_norm, f"{name}.feed_forward_norm")


def model_inputs(network: EncoderNetwork, static: tuple[int, int] | None) -> list[onnx.ValueInfoProto]:
    """Describe the inputs: int64 ``[batch, sequence]`` each."""
    names = ["input_ids", "attention_mask"]
    if has_token_types(network.embeddings):
        names.append("token_type_ids")
    shape = static or ("batch", "sequence")
    return [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in names]


def model_outputs(network: EncoderNetwork, static: tuple[int, int] | None) -> list[onnx.ValueInfoProto]:
    """Describe the only output."""
    batch = static[0] if static else "batch"
    if isinstance(network.head, ClassificationHead):
        shape = [batch, network.head.classifier.outputs]
        return [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)]
    return [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, [batch, network.hidden_size])]
