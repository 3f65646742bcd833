"""Strict reading of small JSON files that a library will read again later."""

import json
from typing import Any

from infra.errors import InvalidInputError

JsonObject = dict[str, Any]

MAX_DEPTH = 40


class _Refused(ValueError):
    """What is wrong, in words."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> JsonObject:
    result: JsonObject = {}
    for key, value in pairs:
        if key in result:
            # Parsers differ in which one they keep: what we checked must be what a library reads.
            raise _Refused(f"the key {key[:80]!r} is given twice")
        result[key] = value
    return result


def _no_constant(name: str) -> None:
    raise _Refused(f"{name} is not JSON")


def depth(value: Any) -> int:
    """Nesting depth of a JSON value: 1 for a scalar; counted without recursion, at most ``MAX_DEPTH + 1``."""
    level, current = 0, [value]
    while current and level <= MAX_DEPTH:
        level += 1
        deeper: list[Any] = []
        for item in current:
            if isinstance(item, dict):
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
        current = deeper
    return level


def parse(name: str, data: bytes, error: type[InvalidInputError]) -> Any:
    """Parse UTF-8 JSON; duplicate keys, NaN, Infinity, huge integers and deep nesting are refused.

    Args:
        name: What to call the file in the message.
        data: The whole content.
        error: The class to raise.

    Raises:
        InvalidInputError: Of class ``error``, with the reason.
    """
    hint = f"Check {name} with `python -m json.tool {name}` and send it again."
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except UnicodeDecodeError as problem:
        raise error(f"{name} is not UTF-8 text (byte {problem.start}).", hint=hint) from None
    except RecursionError:
        raise error(f"{name} is nested too deeply.", hint=hint) from None
    except ValueError as problem:  # JSONDecodeError, _Refused, and integers of thousands of digits
        raise error(f"{name} is not valid JSON: {problem}.", hint=hint) from None
    if depth(value) > MAX_DEPTH:
        raise error(f"{name} is nested more than {MAX_DEPTH} levels deep.", hint=hint)
    return value


def parse_object(name: str, data: bytes, error: type[InvalidInputError]) -> JsonObject:
    """Like :func:`parse`; the top level must be an object."""
    value = parse(name, data, error)
    if not isinstance(value, dict):
        raise error(f"{name} holds a {type(value).__name__}, not an object.", hint=f"Send the original {name}.")
    return value
