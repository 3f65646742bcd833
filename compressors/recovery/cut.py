"""Cuts a healed network further, by statistics of its own."""

from compressors.apply import apply_recipe
from compressors.calibration import calibrate
from compressors.network import EncoderNetwork
from compressors.recipe import Recipe
from compressors.recovery.data import TrainingData
from compressors.recovery.data import model_inputs
from compressors.recovery.data import sequential_batches
from compressors.recovery.taylor import add_taylor_orders
from compressors.recovery.taylor import taylor_importance

_BATCH = 32


def cut(network: EncoderNetwork, recipe: Recipe, texts: TrainingData) -> EncoderNetwork:
    """Return ``network`` cut to a recipe, with statistics that are taken of ``network`` anew (ZipLM, arXiv 2302.04089).

    Args:
        network: any network, healed or not. It is not changed.
        recipe: of the dense model that ``network`` comes from; no branch may be wider than in ``network``, and the
            layers that ``network`` lacks must be removed in it as well.
        texts: some hundred texts.

    Raises:
        InvalidInputError: the recipe does not fit the network.
    """
    calibration = calibrate(network, map(model_inputs, sequential_batches(texts, _BATCH)))
    if recipe.criterion == "taylor":
        add_taylor_orders(calibration, taylor_importance(network, texts, batch_size=_BATCH))
    present = {layer.index for layer in network.layers}
    layers = tuple(layer for index, layer in enumerate(recipe.layers) if index in present)
    return apply_recipe(network, calibration, recipe.model_copy(update={"layers": layers}))
