"""Discovery of profiler plugins."""

from functools import cache
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import cast

from infra.errors import InvalidInputError
from infra.errors import NotFoundError
from profilers.protocol import API_VERSION
from profilers.protocol import Profiler

GROUP = "paretune.profilers"

_BUILT_IN = {
    "onnxruntime": "profilers.backends.onnxruntime:OnnxRuntimeProfiler",
    "openvino": "profilers.backends.openvino:OpenVinoProfiler",
    "torch_cuda": "profilers.backends.torch_cuda:TorchCudaProfiler",
}
"""Known even where the package runs from a checkout without being installed."""


def _references() -> dict[str, str]:
    installed = {point.name: point.value for point in entry_points(group=GROUP)}
    return {**installed, **_BUILT_IN}


def profiler_names() -> list[str]:
    """Return the names of all profilers, sorted; nothing is imported."""
    return sorted(_references())


@cache
def get_profiler(name: str) -> Profiler:
    """Return the profiler with this name.

    Raises:
        NotFoundError: There is no such profiler; the hint lists those that exist.
        InvalidInputError: The plugin is broken or was written for another version of the protocol.
    """
    reference = _references().get(name)
    if reference is None:
        raise NotFoundError(
            f"There is no profiler named {name!r}.",
            hint=f"Use one of: {', '.join(profiler_names())}; a plugin registers in the entry-point group {GROUP!r}.",
        )
    try:
        profiler = resolve_name(reference)()
    except (ImportError, AttributeError, TypeError) as error:
        raise InvalidInputError(
            f"The profiler {name!r} ({reference}) cannot be loaded: {error}.",
            hint="Reinstall or remove the package that provides it.",
        ) from error
    version = getattr(profiler, "api_version", None)
    if version != API_VERSION:
        raise InvalidInputError(
            f"The profiler {name!r} has protocol version {version}, this Paretune needs {API_VERSION}.",
            hint="Install a matching version of the plugin.",
        )
    return cast("Profiler", profiler)
