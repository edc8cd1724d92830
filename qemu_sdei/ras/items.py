"""What stands in a table beside fields: structures, rows of them, and bytes whose number a field says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qemu_sdei.ras.fields import Field, Named

if TYPE_CHECKING:
    from qemu_sdei.ras.structure import Table


@dataclass(frozen=True, kw_only=True, eq=False)
class Part(Named):
    """A structure of fixed size."""

    table: Table


@dataclass(frozen=True, kw_only=True, eq=False)
class Many(Named):
    """Structures one behind the other."""

    table: Table
    count: str
    """The field that says how many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Extent(Named):
    """Bytes whose number is said by a field."""

    length: str = ""
    """That field; "" with no size: all that is left."""
    size: int = 0
    """Bytes, where no field says it."""
    from_start: bool = False
    """The field counts from the start of the structure, and says where the bytes end."""
    when: str = ""
    """They are there only where this field is not 0."""
    hidden: bool = False
    """Nobody gives a meaning to them: a gap."""

    @property
    def takes_all(self) -> bool:
        """Whether they are all that is left."""
        return not self.length and not self.size


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice(Extent):
    """Bytes that are a structure: which one, another field says. Those of an unknown kind, or too few for it, stay
    bytes.
    """

    by: str = ""
    """That field; "": it is always the same one."""
    tables: Mapping[Any, Table]
    """By its value; of "" under 0."""

    def table_for(self, values: Mapping[str, Any]) -> Table | None:
        """The structure that the bytes are, in one of these values."""
        return self.tables.get(values.get(self.by) if self.by else 0)


Item = Field | Part | Many | Extent
