"""Options of a device profile."""

from collections.abc import Sequence

from infra.errors import InvalidInputError
from profilers.types import DeviceProfile


def reject_unknown_options(device: DeviceProfile, known: Sequence[str]) -> None:
    """Check the names of the options.

    Raises:
        InvalidInputError: An option is not known to the profiler; the hint lists those that are.
    """
    unknown = sorted(set(device.options) - set(known))
    if unknown:
        raise InvalidInputError(
            f"The device {device.name!r} has options that {device.profiler} does not know: {', '.join(unknown)}.",
            hint=f"Known options: {', '.join(known)}.",
        )
