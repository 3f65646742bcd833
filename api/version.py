"""The version of the running service."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version


def _installed() -> str:
    try:
        return version("paretune")
    except PackageNotFoundError:  # run from a checkout
        return "0.1.0"


VERSION = _installed()
