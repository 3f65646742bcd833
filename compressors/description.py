"""The size and shape of a model, as plain data: what the search builds its space from. Light: no torch."""

from pydantic import BaseModel
from pydantic import ConfigDict


class Anatomy(BaseModel):
    """What there is to remove in an encoder.

    ``heads`` and ``intermediate_size`` have one entry for each layer; 0 stands for a branch that is already gone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: str
    """Family name of the Hugging Face configuration, such as ``bert``."""
    task: str
    """``sequence-classification`` | ``embedding``."""
    layers: int
    hidden_size: int
    heads: tuple[int, ...]
    head_size: int
    intermediate_size: tuple[int, ...]
    vocabulary_size: int
    max_sequence_length: int
    """Tokens, special tokens included."""
    labels: tuple[str, ...] = ()
    """Class names in output order; empty for embeddings."""
    parameters: int
    has_token_types: bool
    """Whether the exported forms have an input ``token_type_ids``."""
    activation: str | None = None
    """Of the feed-forward branches: ``gelu`` | ``gelu_tanh`` | ``relu``; ``None``: not known."""
