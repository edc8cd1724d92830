"""The errors of this package: whatever is wrong with its input ends as one of these."""

from __future__ import annotations


class AcpiError(Exception):
    """Base of everything that this package raises on purpose."""


class DtError(AcpiError):
    """The device tree is damaged, or not the tree of the machine that was described."""


class TableError(AcpiError):
    """An ACPI table's bytes, or the values that one is to be made of, cannot be.

    Attributes:
        signature: of the table; "" if that is not known.
        offset: in bytes from the start of the table; None if the fault has no place in it.
        field: name of the field, such as `sources[1].notification.vector`; "" if it is about none.
    """

    def __init__(self, message: str, *, signature: str = "", offset: int | None = None, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.signature = signature
        self.offset = offset
        self.field = field

    def __str__(self) -> str:
        place = ([] if self.offset is None else [f"offset {self.offset:#x}"]) + ([self.field] if self.field else [])
        where = " ".join([self.signature or "ACPI table", *([f"({', '.join(place)})"] if place else [])])
        return f"{where}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        return _table_error, (self.message, self.signature, self.offset, self.field)


def _table_error(message: str, signature: str, offset: int | None, field: str) -> TableError:
    return TableError(message, signature=signature, offset=offset, field=field)
