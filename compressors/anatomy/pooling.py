"""How a folder turns token states into a sentence embedding, as sentence-transformers describes it."""

import json
from pathlib import Path
from typing import Any
from typing import Literal

from compressors.network import PoolingHead
from infra.errors import InvalidModelError

_FLAGS: dict[str, Literal["mean", "cls"]] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")


def read_pooling(model_dir: Path) -> PoolingHead:
    """Read ``modules.json`` and the pooling configuration that it names; without them: mean pooling, normalised.

    Raises:
        InvalidModelError: a file is damaged, or asks for something else than mean or first-token pooling.
    """
    modules_path = model_dir / "modules.json"
    if not modules_path.exists():
        folder = model_dir / "1_Pooling"
        return PoolingHead(_read_mode(folder) if folder.exists() else "mean", normalize=True)
    modules = _read_json(modules_path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise InvalidModelError("modules.json is not a list of modules.", hint="Upload it as it was saved.")
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    unknown = [kind for kind in kinds if kind not in _KNOWN_MODULES]
    if unknown:
        raise InvalidModelError(
            f"modules.json asks for the module {unknown[0]!r}, which is not supported.",
            hint=f"Supported sentence-transformers modules: {', '.join(_KNOWN_MODULES)}.",
        )
    pooling: Literal["mean", "cls"] = "mean"
    for kind, module in zip(kinds, modules, strict=True):
        if kind == "Pooling":
            pooling = _read_mode(_inside(model_dir, str(module.get("path", ""))))
    return PoolingHead(pooling, normalize="Normalize" in kinds)


def _inside(model_dir: Path, relative: str) -> Path:
    path = (model_dir / relative).resolve()
    if not path.is_relative_to(model_dir.resolve()):
        raise InvalidModelError(
            "modules.json names a path outside of the model folder.", hint="Upload it as it was saved."
        )
    return path


def _read_mode(folder: Path) -> Literal["mean", "cls"]:
    config = _read_json(folder / "config.json")
    asked = _asked_modes(config) if isinstance(config, dict) else []
    if len(asked) != 1 or asked[0] not in ("mean", "cls"):
        raise InvalidModelError(
            f"The pooling mode {' + '.join(asked) or 'none'} is not supported.",
            hint="Supported poolings: the mean of the tokens, or the first token.",
        )
    return "mean" if asked[0] == "mean" else "cls"


def _asked_modes(config: dict[str, Any]) -> list[str]:
    """Names of the modes that are switched on; newer files have one ``pooling_mode`` in place of the flags."""
    mode = config.get("pooling_mode")
    if mode is not None:
        return [str(part) for part in mode] if isinstance(mode, list) else [str(mode)]
    flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    return [_FLAGS.get(flag, flag.removeprefix("pooling_mode_")) for flag in flags]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidModelError(
            f"The model folder lacks {path.parent.name}/{path.name}, which modules.json names.",
            hint="Upload all files of the sentence-transformers model.",
        ) from None
    except ValueError as error:
        raise InvalidModelError(
            f"{path.name} is not valid JSON: {error}.", hint="Upload it as it was saved."
        ) from error
