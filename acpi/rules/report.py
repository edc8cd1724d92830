"""What a check of a table found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from qemu_sdei.acpi.layout import FieldValue


class Severity(Enum):
    """How bad a finding is."""

    ERROR = "error"
    """What the table is for does not work: the specification forbids it and no operating system copes with it."""
    WARNING = "warning"
    """Most likely not what was meant, or forbidden; but operating systems take it, and the message says how."""
    NOTE = "note"
    """Nothing is wrong with the table; it is said so that nobody wonders."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a table."""

    severity: Severity
    signature: str
    """Of the table; "" if it has none."""
    offset: int | None
    """Bytes from the start of the table; None if it has no place."""
    field: str
    """Path of attribute names, such as `sources[0].notification.vector`; "" if it is about none."""
    message: str

    def __str__(self) -> str:
        place = ([] if self.offset is None else [f"offset {self.offset:#x}"]) + ([self.field] if self.field else [])
        where = f" ({', '.join(place)})" if place else ""
        return f"{self.severity.value}: {self.signature or 'table'}{where}: {self.message}"


@dataclass(slots=True)
class Report:
    """Collects findings; knows where each field is."""

    signature: str
    fields: Callable[[], Iterable[FieldValue]] = tuple
    """Gives the fields of the table. Asked for when there is something to find fault with: most tables are sound."""
    findings: list[Finding] = field(default_factory=list)
    _places: dict[str, int] | None = None

    def error(self, name: str, message: str, offset: int | None = None) -> None:
        """Something that must not be."""
        self._add(Severity.ERROR, name, message, offset)

    def warning(self, name: str, message: str, offset: int | None = None) -> None:
        """Something that most likely was not meant, or that operating systems live with."""
        self._add(Severity.WARNING, name, message, offset)

    def note(self, name: str, message: str, offset: int | None = None) -> None:
        """Something that is right, and looks odd."""
        self._add(Severity.NOTE, name, message, offset)

    def reserved(self, name: str, value: int | bytes, mask: int | None = None) -> None:
        """Warn if reserved bits (of a number: those of `mask`; else all) are not 0."""
        number = int.from_bytes(value, "little") if isinstance(value, bytes) else value
        if number := number if mask is None else number & mask:
            self.warning(name, f"reserved bits are set: {number:#x}")

    def _add(self, severity: Severity, name: str, message: str, offset: int | None) -> None:
        if offset is None and name:
            if self._places is None:
                self._places = {each.name: each.offset for each in self.fields()}
            offset = self._places.get(name)
        self.findings.append(Finding(severity, self.signature, offset, name, message))
