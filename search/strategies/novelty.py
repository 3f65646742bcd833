"""New recipes only: what to do when a sampler repeats itself."""

import itertools
import random
from collections.abc import Container
from collections.abc import Iterator

from search.space import Params
from search.space import Searchable

WALKS = 20
WALK_LENGTH = 8
ENUMERABLE = 20_000


def nearest_new(space: Searchable, params: Params, seen: Container[str], seed: int) -> Params | None:
    """Return ``params``, or parameters close to them, whose recipe is not in ``seen``.

    Random walks of single-parameter moves first; a space small enough to enumerate is then searched completely, so that
    ``None`` there means that everything has been tried.
    """
    for candidate in itertools.chain([params], _walks(space, params, random.Random(seed)), _all(space, params)):  # noqa: S311
        if space.to_recipe(candidate).digest not in seen:
            return candidate
    return None


def random_params(space: Searchable, generator: random.Random) -> Params:
    """Draw every parameter uniformly from its levels."""
    return {parameter.name: generator.choice(parameter.levels) for parameter in space.parameters}


def _walks(space: Searchable, start: Params, generator: random.Random) -> Iterator[Params]:
    for _ in range(WALKS):
        params = dict(start)
        for _ in range(WALK_LENGTH):
            parameter = generator.choice(space.parameters)
            position = parameter.levels.index(params[parameter.name])
            if parameter.ordered:
                others = [position - 1] * (position > 0) + [position + 1] * (position + 1 < len(parameter.levels))
            else:
                others = [other for other in range(len(parameter.levels)) if other != position]
            params[parameter.name] = parameter.levels[generator.choice(others)]
            yield dict(params)


def _all(space: Searchable, start: Params) -> Iterator[Params]:
    if space.size > ENUMERABLE:
        return
    names = [parameter.name for parameter in space.parameters]
    for values in itertools.product(*(parameter.levels for parameter in space.parameters)):
        yield start | dict(zip(names, values, strict=True))
