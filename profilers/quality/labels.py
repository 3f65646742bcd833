"""From what a dataset says to what the model's outputs are called."""

from collections.abc import Mapping
from typing import Any
from typing import Self

from infra.errors import InvalidDatasetError


class LabelReader:
    """Turns label values into class ids.

    A text that is the name of a class means that class (case matters only where names differ by nothing else);
    anything else must be a class id: an integer, or a number or text that is one.

    Args:
        id2label: The model's classes, as in ``config.json``: keys are ids, as integers or text.
        classes: Number of classes; default: as many as ``id2label`` has. 0: any id from 0 on is accepted.
    """

    def __init__(self, id2label: Mapping[Any, str], classes: int | None = None) -> None:
        self._names = {int(key): name for key, name in id2label.items()}
        self._classes = len(self._names) if classes is None else classes
        self._exact = {name: key for key, name in self._names.items()}
        folded = [name.casefold() for name in self._names.values()]
        self._folded = {name.casefold(): key for key, name in self._names.items() if folded.count(name.casefold()) == 1}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read ``config.json``: ``id2label``, else ``num_labels``, else two classes (what the library assumes)."""
        id2label = config.get("id2label") or {}
        return cls(id2label, len(id2label) or int(config.get("num_labels") or 2))

    def read(self, value: Any, row: int, column: str) -> int:
        """Return the class id.

        Args:
            value: What the dataset has.
            row: Its row, for the message.
            column: Its column, for the message.

        Raises:
            InvalidDatasetError: The value is neither the name nor the id of a class.
        """
        named = self._named(value)
        if named is not None:
            return named
        number = _as_integer(value)
        if number is None or number < 0 or (self._classes and number >= self._classes):
            raise InvalidDatasetError(
                f"Row {row}: the label {value!r} in the column {column!r} is not one of the model's classes.",
                hint=f"Use {self._allowed()}.",
                errors=[{"field": column, "message": f"row {row}: {value!r}"}],
            )
        return number

    def missing(self, value: Any) -> bool:
        """Whether a value says in one of the usual ways that there is no label: null, NaN, an empty text, or -1."""
        if isinstance(value, str):
            return value.strip() in {"", "-1"} and self._named(value) is None
        return value is None or value != value or value == -1

    def _named(self, value: Any) -> int | None:
        if not isinstance(value, str):
            return None
        text = value.strip()
        return self._exact.get(text, self._folded.get(text.casefold()))

    def _allowed(self) -> str:
        if not self._classes:
            return "integers from 0 on"
        shown = [f"{key} ({name})" for key, name in sorted(self._names.items())[:10]]
        return f"an integer from 0 to {self._classes - 1}" + (f" or a name: {', '.join(shown)}" if shown else "")


def _as_integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return None
