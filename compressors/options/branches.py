"""One branch of one layer under a recipe, with its tensors; built on demand and kept as long as there is room."""

from dataclasses import dataclass

from torch import Tensor

from compressors.apply import apply_recipe
from compressors.calibration.cache import ByteCache
from compressors.calibration.statistics import Calibration
from compressors.export.simulation import stored_attention
from compressors.export.simulation import stored_feed_forward
from compressors.network import Attention
from compressors.network import EncoderNetwork
from compressors.network import FeedForward
from compressors.network import Linear
from compressors.recipe import AttentionRecipe
from compressors.recipe import BranchRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe

CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Branch:
    """The weights of a branch; ``None`` where it is removed."""

    network: Attention | FeedForward | None
    key: str = ""
    """Names the branch within its library; equal keys mean equal tensors."""

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Its linear layers, the one that writes to the residual stream last."""
        if self.network is None:
            return ()
        if isinstance(self.network, FeedForward):
            return (self.network.up, self.network.down)
        return (self.network.query, self.network.key, self.network.value, self.network.output)

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors in memory."""
        return sum(tensor.nbytes for linear in self.linears for tensor in _tensors(linear))


class BranchLibrary:
    """Branches of one model under any recipe.

    Args:
        network: The dense model.
        calibration: Its calibration.
        recipe: The global choices of every candidate; its layers are ignored.
        cache_bytes: Room for branches that were built.
    """

    def __init__(
        self, network: EncoderNetwork, calibration: Calibration, recipe: Recipe, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.network = network
        self.calibration = calibration
        self.recipe = recipe
        self._cache = ByteCache(cache_bytes)

    def get(self, layer: int, branch: BranchRecipe) -> Branch:
        """Return the branch of ``layer`` that ``branch`` describes.

        Low-bit weights are rounded as they are stored, so that they have the deployed error.

        Args:
            layer: Position of the layer in the network.
            branch: Recipe of its attention or its feed-forward branch.
        """
        key = f"{layer}.{branch!r}"
        return self._cache.get(key, Branch, lambda: self._build(layer, branch, key))

    def _build(self, layer: int, branch: BranchRecipe, key: str) -> Branch:
        kind = "attention" if isinstance(branch, AttentionRecipe) else "feed_forward"
        quantization = self.recipe.quantization
        layers = [LayerRecipe() for _ in self.network.layers]
        layers[layer] = LayerRecipe.model_validate({kind: branch})
        recipe = self.recipe.model_copy(update={"layers": tuple(layers)})
        candidate = apply_recipe(self.network, self.calibration, recipe)
        built = candidate.layers[layer]
        if kind == "attention":
            return Branch(built.attention and stored_attention(built.attention, quantization), key)
        return Branch(built.feed_forward and stored_feed_forward(built.feed_forward, quantization), key)


def stored_bytes(linears: tuple[Linear, ...], quantization: QuantizationRecipe) -> int:
    """Return what the layers take in a file: weights in their bit-width, biases and scales in 32 bits."""
    total = 0
    for linear in linears:
        for weight in _weights(linear):
            outputs, inputs = weight.shape
            total += weight.numel() * linear.bits // 8
            if linear.bits < 16:
                total += outputs * -(-inputs // (quantization.block_size(linear.bits) or inputs)) * 4
        total += 0 if linear.bias is None else linear.bias.numel() * 4
    return total


def _weights(linear: Linear) -> list[Tensor]:
    return [weight for weight in (linear.weight, linear.left, linear.right) if weight is not None]


def _tensors(linear: Linear) -> list[Tensor]:
    return _weights(linear) + ([] if linear.bias is None else [linear.bias])
