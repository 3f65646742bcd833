"""Branches of an option database that is being built, in files, so that a later attempt goes on after them."""

from collections.abc import Iterator
from collections.abc import MutableMapping
from pathlib import Path

from pydantic import TypeAdapter
from pydantic import ValidationError

from compressors.options.database import BranchUnit
from compressors.options.database import UnitName
from infra.files import write_whole

_UNIT = TypeAdapter(BranchUnit)


class OptionUnits(MutableMapping[UnitName, BranchUnit]):
    """One file for each branch that is done, there completely or not at all.

    Args:
        folder: Of this database alone: one that offers the same options of the same model.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, name: UnitName) -> BranchUnit:
        try:
            return _UNIT.validate_json(self._path(name).read_bytes())
        except (FileNotFoundError, ValidationError):
            raise KeyError(name) from None

    def __setitem__(self, name: UnitName, unit: BranchUnit) -> None:
        write_whole(self._path(name), _UNIT.dump_json(unit))

    def __delitem__(self, name: UnitName) -> None:
        self._path(name).unlink()

    def __iter__(self) -> Iterator[UnitName]:
        for path in sorted(self._folder.glob("*.json")):
            layer, kind = path.stem.split(".")
            yield int(layer), kind

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _path(self, name: UnitName) -> Path:
        layer, kind = name
        return self._folder / f"{layer}.{kind}.json"
