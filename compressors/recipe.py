"""The complete description of one candidate model: data only, no torch.

A :class:`Recipe` and the content of (model, calibration) determine the bytes of the candidate. Recipes are JSON in the
database, in manifests and over the API; ``Recipe.digest`` names a candidate everywhere.
"""

import hashlib
import json
from typing import Annotated
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

Bits = Literal[4, 8, 16, 32]
Mask = Literal["wanda", "magnitude", "sparsegpt"]
Pattern = Literal["unstructured", "2:4"]

BLOCK = 32
"""Weights along the inputs that share a scale where only weights are stored in few bits."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AttentionRecipe(_Frozen):
    """What happens to one layer's attention branch."""

    heads: Annotated[int, Field(ge=0)] | None = None
    """Heads that are kept; ``None``: all; ``0``: the branch and its output bias are removed."""
    rank: Annotated[int, Field(ge=1)] | None = None
    """Rank of the query, key, value and output projections; ``None``: full."""
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the surviving weights that is set to zero."""
    mask: Mask = "wanda"
    """How the zeros are chosen where ``sparsity`` > 0."""
    pattern: Pattern = "unstructured"
    """``2:4``: two of every four consecutive weights stay; ``sparsity`` is 0.5 then."""
    bits: Bits = 32
    """Weight bit-width of the branch's linear layers."""

    @property
    def level(self) -> int | None:
        """How much of the branch is kept: its heads."""
        return self.heads


class FeedForwardRecipe(_Frozen):
    """What happens to one layer's feed-forward branch."""

    intermediate_size: Annotated[int, Field(ge=0)] | None = None
    """Channels that are kept; ``None``: all; ``0``: the branch and its output bias are removed."""
    rank: Annotated[int, Field(ge=1)] | None = None
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mask: Mask = "wanda"
    pattern: Pattern = "unstructured"
    bits: Bits = 32

    @property
    def level(self) -> int | None:
        """How much of the branch is kept: its channels."""
        return self.intermediate_size


BranchRecipe = AttentionRecipe | FeedForwardRecipe


class LayerRecipe(_Frozen):
    """One transformer layer. A layer with both branches removed is the identity and is left out of the graph."""

    attention: AttentionRecipe = AttentionRecipe()
    feed_forward: FeedForwardRecipe = FeedForwardRecipe()
    removed: bool = False
    """The whole layer, normalisations included, is dropped."""
    merged: Annotated[int, Field(ge=0)] = 0
    """So many of the following layers, which are ``removed``, are merged into this one: what their weights differ by
    from this layer's is added to it (LaCo). Such a layer keeps all heads and channels; ``0``: nothing is merged."""

    def with_branches(self, **update: object) -> "LayerRecipe":
        """Return the layer with the same fields changed in both branches."""
        branches = {"attention": self.attention, "feed_forward": self.feed_forward}
        return self.model_copy(update={name: branch.model_copy(update=update) for name, branch in branches.items()})


class QuantizationRecipe(_Frozen):
    """How the layers whose ``bits`` are below 16 are quantised."""

    scheme: Literal["dynamic", "static", "weight_only"] = "dynamic"
    """``dynamic``: int8 weights per output channel, activation scales at run time. ``static``: the same with calibrated
    activation scales. ``weight_only``: block-wise weights, activations stored as floats, which the runtime may round to
    int8 within a product (``accuracy_level=4`` of ONNX Runtime's ``MatMulNBits``); layers with 4 bits are always so."""
    ranges: Literal["minmax", "percentile", "entropy", "mse"] = "percentile"
    """How the static scheme finds the range of an activation."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Static scheme: share of the activations' spread over channels that is moved to the weights (SmoothQuant); costs
    one multiplication of each activation. 0: off. Not together with ``rounding: gptq``, whose grid it would undo."""
    attention_products: bool = False
    """Also compute the two activation x activation products of attention in int8, in branches with 8 bits; takes effect
    in the ``sequence_first`` layout. Jobs do not try it: rounding what they read has cost more than they save, also
    with AMX."""
    reduce_range: bool = False
    """Schemes dynamic and static: int8 weights use 7 of their bits (-63..63). For processors that add two 8-bit
    products in 16 bits with saturation (x86 without VNNI): with the whole range their sums may be silently wrong."""
    embedding_bits: Literal[8, 32] = 32
    """Storage of the embedding tables."""
    rounding: Literal["nearest", "gptq"] = "nearest"
    """``nearest``: the exporter rounds the float weights. ``gptq``: the weights of layers with 8 or 4 bits are put on
    the grid that they are stored on with error compensation beforehand."""

    def grid_bits(self, bits: int) -> int:
        """Return how many bits of weights that are stored in ``bits`` bits are used."""
        return 7 if bits == 8 and self.reduce_range and self.scheme != "weight_only" else bits

    def block_size(self, bits: int) -> int | None:
        """Return how many weights of an output channel share a scale in 8 or 4 bits; ``None``: all of them."""
        return BLOCK if bits == 4 or self.scheme == "weight_only" else None

    def rounds_inputs(self, bits: int) -> bool:
        """Whether what a layer with ``bits`` bits reads is rounded to 8 bits as well."""
        return bits == 8 and self.scheme != "weight_only"


class GraphRecipe(_Frozen):
    """Which of the equivalent graphs is written for the same weights. The fastest depends on the device."""

    operators: Literal["contrib", "standard"] = "contrib"
    """``contrib``: ONNX Runtime's own operators are allowed; ``standard``: the ONNX operator set only."""
    layout: Literal["batch_first", "sequence_first"] = "batch_first"
    """Order of the hidden states; ``sequence_first`` needs no transposes before the attention products, and takes
    effect with ``contrib`` operators only."""
    packed_qkv: bool = True
    """One matrix product for query, key and value."""
    fused_attention: bool = False
    """ONNX Runtime's fused attention operator in place of the elementary products."""
    fused_skip_norm: bool = False
    """``SkipLayerNormalization`` in place of ``Add`` + ``LayerNormalization``."""
    gelu: Literal["erf", "fused", "tanh"] = "fused"
    """``erf``: elementary operators; ``fused``: one exact operator; ``tanh``: the fast approximation (changes the
    result slightly)."""
    first_token_head: bool = True
    """Compute the last layer only where the task's head reads it (sequence classification on the first token)."""
    merged_keys: bool = False
    """Where ``first_token_head`` leaves a single query, multiply it with the weights of the keys rather than the hidden
    states of all tokens, and the values likewise: the same sums in another order, in float32."""
    static_shape: bool = False
    """Write the workload's batch and sequence length into the graph; an extra artifact beside the dynamic one."""


class Recipe(_Frozen):
    """A candidate model, completely."""

    version: Literal[1] = 1
    layers: tuple[LayerRecipe, ...]
    """One entry for each layer of the dense model, in order."""
    criterion: Literal["obs", "magnitude", "taylor"] = "obs"
    """The order in which heads and channels are removed."""
    compensation: Literal["least_squares", "none"] = "least_squares"
    """Whether the surviving weights are re-solved against the calibration Gram matrix."""
    factorization: Literal["whitened", "plain"] = "whitened"
    """``whitened``: activation-aware SVD on the Gram matrix; ``plain``: SVD of the weights."""
    quantization: QuantizationRecipe = QuantizationRecipe()
    graph: GraphRecipe = GraphRecipe()
    repair: Literal["none", "sequential"] = "none"
    """``sequential``: after everything else the matrices and normalisations are re-solved in order, each on the inputs
    that it really gets, towards the dense model's outputs; kept only where text that was not fitted agrees. Needs no
    labels."""
    precision: Literal["f32", "bf16"] = "f32"
    """Arithmetic that the device is asked for where it runs floating point (OpenVINO's hint, CUDA's dtype)."""
    weights: str | None = None
    """sha256 of the blob with trained weights for exactly this structure (recovery training); ``None``: computed from
    the dense model."""
    seed: int = 0

    @classmethod
    def dense(cls, layers: int) -> "Recipe":
        """Return the recipe that changes nothing in a model of ``layers`` layers."""
        return cls(layers=tuple(LayerRecipe() for _ in range(layers)))

    def canonical_json(self) -> str:
        """Return the JSON text that the digest is taken of: sorted keys, no blanks."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """sha256 (hexadecimal) of :meth:`canonical_json`."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


class RecipeCandidate(_Frozen):
    """A candidate that Paretune builds from a recipe."""

    kind: Literal["recipe"] = "recipe"
    recipe: Recipe


class BaselineCandidate(_Frozen):
    """What the user could have had in one line; built the way the user would build it."""

    kind: Literal["baseline"] = "baseline"
    name: Literal["fp32", "int8_one_liner", "int8_static", "openvino_bf16", "openvino_int8", "torch_bf16", "torch_fp16"]


Candidate = Annotated[RecipeCandidate | BaselineCandidate, Field(discriminator="kind")]


def candidate_digest(candidate: RecipeCandidate | BaselineCandidate) -> str:
    """sha256 that names a candidate, of either kind."""
    if isinstance(candidate, RecipeCandidate):
        return candidate.recipe.digest
    return hashlib.sha256(f"baseline:{candidate.name}".encode()).hexdigest()
