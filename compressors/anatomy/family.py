"""What an adapter must provide, and the small conversions that all adapters share."""

from abc import ABC
from abc import abstractmethod
from typing import Any
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from compressors.network import Activation
from compressors.network import ClassificationHead
from compressors.network import Embeddings
from compressors.network import Layer
from compressors.network import Linear
from compressors.network import Norm
from infra.errors import InvalidModelError

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "relu": "relu",
}


class Family(ABC):
    """Adapter of one family of encoders: knows where the library keeps each tensor."""

    model_types: ClassVar[tuple[str, ...]]
    """Values of ``model_type`` in ``config.json`` that this adapter reads."""

    @abstractmethod
    def model_class(self, model_type: str, task: str) -> type[PreTrainedModel]:
        """Return the library's class for this task."""

    @abstractmethod
    def check(self, config: Any) -> None:
        """Raise :class:`InvalidModelError` where the configuration asks for what the neutral form cannot express."""

    @abstractmethod
    def encoder(self, model: Any) -> Any:
        """Return the encoder without its task head."""

    @abstractmethod
    def embeddings(self, encoder: Any, config: Any) -> Embeddings:
        """Read the embedding tables."""

    @abstractmethod
    def layers(self, encoder: Any, config: Any) -> list[Layer]:
        """Read the transformer layers in order."""

    @abstractmethod
    def classification_head(self, model: Any) -> ClassificationHead:
        """Read the head of a sequence classifier."""


def tensor(parameter: torch.Tensor) -> torch.Tensor:
    """Return the parameter as a plain contiguous float32 CPU tensor."""
    return parameter.detach().to(device="cpu", dtype=torch.float32).contiguous()


def linear(module: nn.Linear) -> Linear:
    """Convert a linear layer."""
    return Linear(tensor(module.weight), None if module.bias is None else tensor(module.bias))


def norm(module: nn.LayerNorm) -> Norm:
    """Convert a layer normalisation."""
    return Norm(tensor(module.weight), tensor(module.bias), module.eps)


def activation(name: object) -> Activation:
    """Translate the configuration's activation name.

    Raises:
        InvalidModelError: the activation is none of GELU, its tanh approximation, and ReLU.
    """
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise InvalidModelError(
            f"The activation {name!r} is not supported.",
            hint=f"Supported activations: {', '.join(sorted(_ACTIVATIONS))}.",
        )
    return _ACTIVATIONS[name]


def require(condition: bool, message: str, hint: str) -> None:
    """Raise :class:`InvalidModelError` unless ``condition`` holds."""
    if not condition:
        raise InvalidModelError(message, hint=hint)
