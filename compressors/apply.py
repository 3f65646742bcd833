"""From the dense model and a recipe to the candidate.

Order: merging of layers, removal, least squares, low rank, masks, rounding. Deterministic: the same model, calibration
and recipe give the same tensors.
"""

from collections.abc import Iterator

from torch import Tensor

from compressors.anatomy.describe import describe
from compressors.calibration.statistics import Calibration
from compressors.calibration.statistics import Site
from compressors.methods.merging import merge_layers
from compressors.moments import Moments
from compressors.network import Attention
from compressors.network import EncoderNetwork
from compressors.network import FeedForward
from compressors.network import Layer
from compressors.network import Linear
from compressors.recipe import AttentionRecipe
from compressors.recipe import BranchRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.refinement import MatrixInput
from compressors.refinement import refine
from compressors.removal import remove_channels
from compressors.removal import remove_heads
from compressors.torch_module import with_tensors
from compressors.validation import is_dropped
from compressors.validation import validate_recipe
from infra.errors import InvalidInputError


def apply_recipe(
    network: EncoderNetwork,
    calibration: Calibration,
    recipe: Recipe,
    trained: dict[str, Tensor] | None = None,
    fallbacks: list[str] | None = None,
) -> EncoderNetwork:
    """Build the candidate that ``recipe`` describes.

    Args:
        network: the dense model that ``calibration`` was taken of. It is not changed; tensors that the recipe does not
            touch are shared with the result.
        calibration: statistics of the dense model. Orders and factorisations that recipes share are kept in it.
        recipe: what to remove, factorise, mask and round.
        trained: weights from recovery training, by the names of :func:`compressors.tensors.named_tensors`, for exactly
            the recipe's structure. They replace the computed ones.
        fallbacks: gets the names of matrices in which compensation was given up, because it was worse than nothing.

    Raises:
        InvalidInputError: the recipe does not fit the model, the calibration belongs to another one, or the recipe
            names trained weights and they are not given or do not fit.
    """
    validate_recipe(recipe, describe(network))
    _check_widths(network, calibration)
    if recipe.weights is not None and trained is None:
        raise InvalidInputError(
            "The recipe names trained weights, but none were given.", hint="Load the blob that recipe.weights names."
        )
    if trained is not None:  # every value is about to be replaced: only the shapes matter
        cheap = {"criterion": "magnitude", "compensation": "none", "factorization": "plain"}
        layers = tuple(layer.with_branches(sparsity=0.0) for layer in recipe.layers)
        recipe = recipe.model_copy(update={"layers": layers, **cheap})
    built = []
    for position, plan in enumerate(recipe.layers):
        if is_dropped(plan):
            continue
        layer = network.layers[position]
        if plan.merged:
            layer = merge_layers(network.layers[position : position + 1 + plan.merged])
        built.append(_Builder(layer, plan, calibration, recipe, fallbacks).build())
    candidate = EncoderNetwork(
        model_type=network.model_type,
        embeddings=network.embeddings,
        layers=built,
        head=network.head,
        labels=network.labels,
        max_sequence_length=network.max_sequence_length,
    )
    return candidate if trained is None else with_tensors(candidate, trained)


def _check_widths(network: EncoderNetwork, calibration: Calibration) -> None:
    for layer in network.layers:
        for site, linear in _readers(layer):
            width = calibration.width(layer.index, site)
            if width != linear.inputs:
                raise InvalidInputError(
                    f"The calibration saw {width} channels at {site} of layer {layer.index}, the model has "
                    f"{linear.inputs}: it belongs to another model.",
                    hint="Calibrate again with this model.",
                )


def _readers(layer: Layer) -> Iterator[tuple[Site, Linear]]:
    if layer.attention is not None:
        yield "attention_in", layer.attention.query
        yield "attention_out", layer.attention.output
    if layer.feed_forward is not None:
        yield "feed_forward_in", layer.feed_forward.up
        yield "feed_forward_mid", layer.feed_forward.down


class _Builder:
    """Builds one layer of the candidate."""

    def __init__(
        self, layer: Layer, plan: LayerRecipe, calibration: Calibration, recipe: Recipe, fallbacks: list[str] | None
    ) -> None:
        self.layer = layer
        self.plan = plan
        self.calibration = calibration
        self.recipe = recipe
        self.compensate = recipe.compensation == "least_squares"
        self.fallbacks = fallbacks

    def build(self) -> Layer:
        """Return the layer with both branches treated; the normalisations stay as they are."""
        return Layer(
            index=self.layer.index,
            attention=self._attention(self.layer.attention, self.plan.attention),
            attention_norm=self.layer.attention_norm,
            feed_forward=self._feed_forward(self.layer.feed_forward, self.plan.feed_forward),
            feed_forward_norm=self.layer.feed_forward_norm,
        )

    def _attention(self, attention: Attention | None, plan: AttentionRecipe) -> Attention | None:
        if attention is None or plan.heads == 0:
            return None
        kept: Tensor | None = None
        if plan.heads is not None and plan.heads < attention.heads:
            attention, kept = remove_heads(
                self.layer, self.calibration, self.recipe.criterion, plan.heads, self.compensate, self.fallbacks
            )
        given, context = self._input("attention_in", None), self._input("attention_out", kept)
        return Attention(
            query=self._refine("query", attention.query, given, plan),
            key=self._refine("key", attention.key, given, plan),
            value=self._refine("value", attention.value, given, plan),
            output=self._refine("output", attention.output, context, plan),
            heads=attention.heads,
            head_size=attention.head_size,
        )

    def _feed_forward(self, branch: FeedForward | None, plan: FeedForwardRecipe) -> FeedForward | None:
        if branch is None or plan.intermediate_size == 0:
            return None
        kept: Tensor | None = None
        if plan.intermediate_size is not None and plan.intermediate_size < branch.intermediate_size:
            width = plan.intermediate_size
            branch, kept = remove_channels(
                self.layer, self.calibration, self.recipe.criterion, width, self.compensate, self.fallbacks
            )
        given, middle = self._input("feed_forward_in", None), self._input("feed_forward_mid", kept)
        return FeedForward(
            up=self._refine("up", branch.up, given, plan),
            down=self._refine("down", branch.down, middle, plan),
            # The recipe asks for another function: every form of the candidate computes that one.
            activation="gelu_tanh" if self._approximates(branch) else branch.activation,
        )

    def _approximates(self, branch: FeedForward) -> bool:
        return branch.activation == "gelu" and self.recipe.graph.gelu == "tanh"

    def _input(self, site: Site, kept: Tensor | None) -> MatrixInput:
        """Return the input of a matrix; what is read from a file is read when a method asks for it."""
        index = self.layer.index
        width = self.calibration.width(index, site) if kept is None else len(kept)

        def moments() -> Moments:
            stored = self.calibration.at(index, site).stored()
            return stored if kept is None else stored.restrict(kept)

        return MatrixInput(moments, self.calibration.cache, f"{index}.{site}.{self.recipe.criterion}.{width}")

    def _refine(self, name: str, linear: Linear, given: MatrixInput, plan: BranchRecipe) -> Linear:
        key = f"{self.layer.index}.{name}.{self.recipe.criterion}.{self.compensate}.{linear.outputs}x{linear.inputs}"
        return refine(linear, given, plan, self.recipe, self.calibration.cache, key, self.fallbacks)
