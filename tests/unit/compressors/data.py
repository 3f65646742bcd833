"""Small random least-squares problems in float64."""

import torch
from torch import Tensor

from compressors.linear_algebra import centred_gram
from compressors.moments import Moments


def correlated_inputs(tokens: int, width: int, seed: int = 0) -> Tensor:
    """Float64 ``[tokens, width]``: correlated channels of unequal spread and a mean that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    spread = torch.linspace(0.3, 3.0, width, dtype=torch.float64)
    noise = torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    return (noise @ mixing) * spread / width**0.5 + torch.randn(width, generator=generator, dtype=torch.float64)


def random_weight(outputs: int, inputs: int, seed: int = 1) -> Tensor:
    """Float64 ``[outputs, inputs]``."""
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments_of(inputs: Tensor) -> Moments:
    """Exact moments of ``inputs``."""
    total = inputs.sum(0)
    return Moments(centred_gram(inputs.T @ inputs, total, len(inputs)), total / len(inputs), len(inputs))


def centred_output_error(inputs: Tensor, difference: Tensor) -> float:
    """Squared error of the outputs after the bias has absorbed the mean, from the activations themselves."""
    outputs = inputs @ difference.T
    return float((outputs - outputs.mean(0)).square().sum())
