"""What every part of the emitter needs to know."""

from dataclasses import dataclass
from dataclasses import field

from compressors.export.onnx.builder import GraphBuilder
from compressors.export.onnx.quantization import Float
from compressors.export.onnx.quantization import Range
from compressors.recipe import GraphRecipe
from compressors.recipe import QuantizationRecipe
from infra.errors import InvalidInputError


@dataclass
class Context:
    """The graph under construction and the choices that shape it.

    Attributes:
        builder: Collects the nodes.
        graph: Which of the equivalent graphs to write.
        quantization: How layers with few bits are computed.
        static: ``(batch, sequence)`` when the shape is written into the graph.
        ranges: Calibrated ranges of activations by value name, for static quantisation.
        probes: When given, statically quantised products are written in float32, and the values that they would round
            are noted here with the largest magnitude of the weights that read each channel, ``[channels]``.
    """

    builder: GraphBuilder
    graph: GraphRecipe
    quantization: QuantizationRecipe
    static: tuple[int, int] | None = None
    ranges: dict[str, Range] = field(default_factory=dict)
    probes: dict[str, Float] | None = None
    memo: dict[str, str] = field(default_factory=dict)
    """Values that are computed once and shared, by a name of their own."""
    quantized: set[str] = field(default_factory=set)
    """Activations that are already quantised, so that several consumers share the work."""

    @property
    def contrib(self) -> bool:
        """Whether ONNX Runtime's own operators may be used."""
        return self.graph.operators == "contrib"

    @property
    def flat(self) -> bool:
        """Whether hidden states are ``[sequence * batch, hidden]`` rather than ``[batch, sequence, hidden]``."""
        return self.graph.layout == "sequence_first" and self.contrib

    def range_of(self, name: str) -> Range:
        """Return the calibrated range of a value.

        Raises:
            InvalidInputError: It was not calibrated.
        """
        if name not in self.ranges:
            raise InvalidInputError(
                f"Static quantisation needs the range of {name}, which was not calibrated.",
                hint="Collect ranges with the same network and recipe, or use the dynamic scheme.",
            )
        return self.ranges[name]
