"""What every branch of a model may become, what that costs in error, and models put together from such parts."""

from compressors.options.database import BranchOption
from compressors.options.database import BranchUnit
from compressors.options.database import OptionSet
from compressors.options.database import build_options
from compressors.options.scoring import ScoringSet
from compressors.options.stitch import StitchedModel

__all__ = ["BranchOption", "BranchUnit", "OptionSet", "ScoringSet", "StitchedModel", "build_options"]
