"""From a Hugging Face folder to the neutral network: one adapter a family."""

from compressors.anatomy.describe import describe
from compressors.anatomy.load import load_network
from compressors.anatomy.reference import load_reference_model

__all__ = ["describe", "load_network", "load_reference_model"]
