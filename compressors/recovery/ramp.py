"""The cubic ramp of Zhu and Gupta (arXiv 1710.01878): which shapes lie on the way to a small one. No torch.

Much is removed at first, while the model has capacity to spare, and little at the end.
"""

from compressors.description import Anatomy
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from infra.errors import InvalidInputError


def cubic_fraction(step: int, steps: int) -> float:
    """Return the part of all removals that is done after ``step`` of ``steps`` steps: ``1 - (1 - step/steps)^3``."""
    return 1.0 - (1.0 - step / steps) ** 3


def ramp(dense: Anatomy, target: Recipe, steps: int, *, granularity: int = 32) -> list[Recipe]:
    """Return the recipes on the way from the dense model to ``target``; the last one is ``target``.

    Args:
        dense: of the dense model.
        target: heads and widths to end with. Whatever else it asks for belongs to the last step only.
        steps: how many, at least 1.
        granularity: widths in between are multiples of this.

    Raises:
        InvalidInputError: the target removes whole layers or branches. What is gone cannot be removed step by step;
            use the network without them as the dense model.
    """
    _check(dense, target)
    plain = target.model_copy(update={"weights": None})
    recipes = []
    for step in range(1, steps):
        done = cubic_fraction(step, steps)
        layers = tuple(
            LayerRecipe(
                attention=AttentionRecipe(heads=_between(dense.heads[index], layer.attention.heads, done, 1)),
                feed_forward=FeedForwardRecipe(
                    intermediate_size=_between(
                        dense.intermediate_size[index], layer.feed_forward.intermediate_size, done, granularity
                    )
                ),
            )
            for index, layer in enumerate(target.layers)
        )
        recipes.append(plain.model_copy(update={"layers": layers}))
    return [*recipes, plain]


def _check(dense: Anatomy, target: Recipe) -> None:
    for layer in target.layers:
        if layer.removed or layer.attention.heads == 0 or layer.feed_forward.intermediate_size == 0:
            raise InvalidInputError(
                "Gradual pruning cannot remove whole layers or branches.",
                hint="Remove them first and start the gradual pruning from the result.",
            )
    if len(target.layers) != dense.layers:
        raise InvalidInputError(
            f"The target describes {len(target.layers)} layers, the model has {dense.layers}.",
            hint="Give one entry for each layer.",
        )


def _between(dense: int, target: int | None, done: float, granularity: int) -> int:
    """Return a size on the way from ``dense`` to ``target``, rounded up to the granularity but not past ``dense``."""
    end = dense if target is None else target
    exact = dense - (dense - end) * done
    rounded = -int(-exact // granularity) * granularity
    return max(end, min(dense, rounded))
