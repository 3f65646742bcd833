"""First-order importance of heads and channels: how much the model's output moves when a unit is scaled away.

Taylor pruning (Molchanov et al. 2019, arXiv:1906.10771; heads: Michel et al. 2019, arXiv:1905.10650) scores a unit by
the square of activation times gradient. Without labels, the gradient is that of the log-likelihood of a label drawn
from the model's own prediction, whose mean square is the Fisher information; for embeddings it is that of a random
direction, whose mean square is the squared change of the embedding.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from compressors.calibration.statistics import Calibration
from compressors.methods.removal_order import magnitude_order
from compressors.network import ClassificationHead
from compressors.network import EncoderNetwork
from compressors.torch_module import to_module
from infra.errors import InvalidInputError
from paretune.artifact.encoder import CompressedEncoder
from paretune.artifact.encoder import EncoderLayer


def add_gradient_orders(
    network: EncoderNetwork, calibration: Calibration, batches: Iterable[dict[str, Tensor]], seed: int = 0
) -> None:
    """Find the removal orders of the criterion ``taylor`` and keep them in ``calibration.orders``.

    Args:
        network: the dense model.
        calibration: its calibration.
        batches: as for :func:`compressors.calibration.calibrate`; some hundred sentences suffice.
        seed: of the drawn labels or directions.

    Raises:
        InvalidInputError: there is no batch.
    """
    module = to_module(network, share=True).requires_grad_(False)
    classifies = isinstance(network.head, ClassificationHead)
    generator = torch.Generator().manual_seed(seed)
    scores: dict[str, Tensor] = {}
    for batch in batches:
        found = _batch_scores(module, batch, classifies, generator)
        scores = {key: scores[key] + value if key in scores else value for key, value in found.items()}
    if not scores:
        raise InvalidInputError("The calibration text is empty.", hint="Give at least some hundred sentences.")
    for position, layer in enumerate(network.layers):
        for unit in ("heads", "channels"):
            if f"{position}.{unit}" in scores:
                calibration.orders[f"{layer.index}.{unit}.taylor"] = magnitude_order(scores[f"{position}.{unit}"])


def _batch_scores(
    module: CompressedEncoder, batch: dict[str, Tensor], classifies: bool, generator: torch.Generator
) -> dict[str, Tensor]:
    """Sum over the examples of ``(activation . gradient)^2`` of every unit, float64, by ``"<position>.<unit>"``."""
    captured: dict[str, Tensor] = {}
    hooks = []
    for position, layer in enumerate(module.layers):
        assert isinstance(layer, EncoderLayer)
        readers = {
            "heads": layer.attention.output if layer.attention else None,
            "channels": layer.feed_forward.down if layer.feed_forward else None,
        }
        for unit, reader in readers.items():
            if reader is not None:
                key = f"{position}.{unit}"
                hooks.append(
                    reader.register_forward_pre_hook(lambda _, inputs, key=key: captured.update({key: inputs[0]}))
                )
    try:
        mask = batch["attention_mask"]
        hidden = module.embeddings(batch["input_ids"], batch.get("token_type_ids")).requires_grad_(True)
        for layer in module.layers:
            hidden = layer(hidden, mask.bool()[:, None, None, :])
        output: Tensor = module.head(hidden, mask)
    finally:
        for hook in hooks:
            hook.remove()
    direction = _direction(output.detach(), classifies, generator)
    gradients = torch.autograd.grad((output * direction).sum(), list(captured.values()), materialize_grads=True)
    result: dict[str, Tensor] = {}
    for (key, activation), gradient in zip(captured.items(), gradients, strict=True):
        product = (activation.detach() * gradient).sum(1).double()  # [batch, width]
        index, unit = key.split(".")
        if unit == "heads":
            attention = module.structure.layers[int(index)].attention
            assert attention is not None
            product = product.view(len(product), attention.heads, attention.head_size).sum(2)
        result[key] = product.square().sum(0)
    return result


def _direction(output: Tensor, classifies: bool, generator: torch.Generator) -> Tensor:
    """Gradient of the score with respect to the output, ``[batch, outputs]``."""
    if not classifies:
        return torch.randn(output.shape, generator=generator)
    probabilities = output.softmax(-1)
    drawn = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    return functional.one_hot(drawn, output.shape[1]).to(output.dtype) - probabilities
