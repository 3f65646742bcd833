"""Model inputs for timing and for evaluation."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidInputError
from profilers.protocol import Feeds
from profilers.types import Workload

_LOWEST_VOCABULARY = 100


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: its name.
        dtype: numpy type.
        dims: sizes; ``None`` where dynamic.
    """

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | None, ...]

    def shape(self, workload: Workload) -> tuple[int, ...]:
        """Return the shape at the workload: the first two dynamic axes are batch and sequence length.

        Raises:
            InvalidInputError: More axes are dynamic, so that their sizes are not known.
        """
        sizes = (workload.batch, workload.sequence_length)
        shape = tuple(dim if dim is not None else size for dim, size in zip(self.dims, sizes, strict=False))
        rest = self.dims[len(shape) :]
        if any(dim is None for dim in rest):
            raise InvalidInputError(
                f"The input {self.name!r} has dynamic axes beyond batch and sequence: {self.dims}.",
                hint="Give the feeds, or fix those axes in the model.",
            )
        return shape + tuple(dim for dim in rest if dim is not None)


def synthetic_feeds(specs: Iterable[InputSpec], workload: Workload, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Make inputs at the workload's shape: the same for every model with the same inputs.

    ``attention_mask``: all tokens attended; ``token_type_ids``: zeros; other integers: ids below 100, which every
    tokenizer's vocabulary has; floats: standard normal.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, NDArray[Any]] = {}
    for spec in specs:
        shape = spec.shape(workload)
        if "mask" in spec.name:
            feeds[spec.name] = np.ones(shape, spec.dtype)
        elif "type" in spec.name:
            feeds[spec.name] = np.zeros(shape, spec.dtype)
        elif np.issubdtype(spec.dtype, np.floating):
            feeds[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
        else:
            feeds[spec.name] = rng.integers(0, _LOWEST_VOCABULARY, shape).astype(spec.dtype)
    return feeds


def matching_feeds(specs: Iterable[InputSpec], feeds: Feeds) -> dict[str, NDArray[Any]]:
    """Choose and convert the feeds that a model takes.

    Raises:
        InvalidInputError: The model has an input that is not among the feeds.
    """
    chosen: dict[str, NDArray[Any]] = {}
    for spec in specs:
        if spec.name not in feeds:
            raise InvalidInputError(
                f"The model needs the input {spec.name!r}; given: {', '.join(sorted(feeds)) or 'nothing'}.",
                hint="Encode the text with the model's own tokenizer.",
            )
        chosen[spec.name] = np.ascontiguousarray(feeds[spec.name], dtype=spec.dtype)
    return chosen
