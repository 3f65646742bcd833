"""The torch form of a compressed model: ``structure.json`` + ``model.safetensors`` -> ``torch.nn.Module``.

Stands alone: it needs torch, safetensors and pydantic, and nothing else of this project. torch is imported when a
model is loaded, so that ``import paretune`` stays light.
"""

from typing import TYPE_CHECKING
from typing import Any

from paretune.artifact.structure import Structure

if TYPE_CHECKING:
    from paretune.artifact.loader import load
    from paretune.artifact.loader import save

__all__ = ["Structure", "load", "save"]


def __getattr__(name: str) -> Any:
    if name in ("load", "save"):
        from paretune.artifact import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
