"""What every part of the emitter needs to know."""

from dataclasses import dataclass
from dataclasses import field

from compressors.export.onnx.builder import GraphBuilder
from compressors.recipe import GraphRecipe
from compressors.recipe import QuantizationRecipe


@dataclass
class Context:
    """The graph under construction and the choices that shape it.

    Attributes:
        builder: Collects the nodes.
        graph: Which of the equivalent graphs to write.
        quantization: How layers with few bits are computed.
        static: ``(batch, sequence)`` when the shape is written into the graph.
    """

    builder: GraphBuilder
    graph: GraphRecipe
    quantization: QuantizationRecipe
    static: tuple[int, int] | None = None
    memo: dict[str, str] = field(default_factory=dict)
    """Values that are computed once and shared, by a name of their own."""

    @property
    def contrib(self) -> bool:
        """Whether ONNX Runtime's own operators may be used."""
        return self.graph.operators == "contrib"

    @property
    def flat(self) -> bool:
        """Whether hidden states are ``[sequence * batch, hidden]`` rather than ``[batch, sequence, hidden]``."""
        return self.graph.layout == "sequence_first" and self.contrib
