"""A table that cannot be read: what there is of its header, its bytes, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.layout import FieldValue
from qemu_sdei.acpi.table import HEADER_SIZE, Header, Oem, Table, header_fields

_OTHER_HEADERS = (b"FACS", b"RSD PTR ")
"""What such a table starts with has nothing of the common header but the signature."""


@dataclass(frozen=True, kw_only=True)
class Unparsed(Table):
    """A damaged table, kept so that it does not hide those beside it. Its bytes are not changed.

    `revision` and `oem` are those of its header, if that is whole.
    """

    data: bytes = b""
    why: TableError = field(default_factory=lambda: TableError("it cannot be read"), compare=False)

    def __post_init__(self) -> None:
        if self._has_header:
            object.__setattr__(self, "revision", self.data[8])
            object.__setattr__(self, "oem", Oem.unpack(self.data[10:HEADER_SIZE]))

    @property
    def _has_header(self) -> bool:
        return len(self.data) >= HEADER_SIZE and not self.data.startswith(_OTHER_HEADERS)

    @property
    def signature(self) -> str:
        """Its four letters, "????" where none are."""
        text = self.data[:4].decode("latin-1")
        return text if len(text) == 4 and text.isascii() and text.isprintable() else "????"

    @property
    def header(self) -> Header:
        """What there is of a header; the length is that of the bytes."""
        sum_ = self.data[9] if self._has_header else 0
        return Header(self.signature, len(self.data), self.revision, sum_, self.oem)

    def to_bytes(self) -> bytes:
        """The bytes as they came."""
        return self.data

    def with_oem(self, oem: Oem) -> Self:
        """The same: nothing is changed in what is not understood."""
        return self

    def fields(self) -> Iterator[FieldValue]:
        """The header's fields, as far as there are bytes for them; the rest is one field of bytes."""
        at = 0
        if not self.data.startswith(_OTHER_HEADERS):
            for each in header_fields(self.data):
                if each.offset + each.size > len(self.data):
                    break
                yield each
                at = each.offset + each.size
        if at < len(self.data):
            yield FieldValue("data", "Data", at, len(self.data) - at, self.data[at:])
