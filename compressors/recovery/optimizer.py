"""What is trained, and by which steps."""

import torch
from torch import Tensor
from torch import nn

from compressors.recovery.config import RecoveryConfig
from paretune.artifact.encoder import CompressedEncoder

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def select_trainable(module: CompressedEncoder, config: RecoveryConfig) -> dict[str, nn.Parameter]:
    """Mark the parameters to train and return them by name."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(config.train_embeddings or name != "embeddings.word.weight")
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def make_optimizer(parameters: dict[str, nn.Parameter], config: RecoveryConfig) -> torch.optim.AdamW:
    """Return AdamW (one fused kernel); biases and norms are not decayed."""
    matrices = [parameter for parameter in parameters.values() if parameter.dim() > 1]
    vectors = [parameter for parameter in parameters.values() if parameter.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the optimiser's moments by parameter name."""
    return {
        f"{name}/{moment}": optimizer.state[parameter][moment]
        for name, parameter in parameters.items()
        for moment in _MOMENTS
        if parameter in optimizer.state
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor]
) -> None:
    """Put the moments of :func:`optimizer_tensors` back."""
    for name, parameter in parameters.items():
        if f"{name}/step" in tensors:
            optimizer.state[parameter] = {moment: tensors[f"{name}/{moment}"] for moment in _MOMENTS}
