"""Tables that have no fields here: their bytes, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.layout import FieldValue, Struct, octets, u8, u24, u32, u64
from qemu_sdei.acpi.table import HEADER_SIZE, Header, Oem, Table, check_length, header_fields, with_checksum


@dataclass(frozen=True, kw_only=True)
class FacsFields(Struct):
    """The FACS, which has no header and no checksum (ACPI 6.5 5.2.10)."""

    signature: bytes = octets(4, "Signature", default=b"FACS")
    length: int = u32("Length", default=64)
    hardware_signature: int = u32("Hardware Signature")
    waking_vector: int = u32("32 Firmware Waking Vector")
    global_lock: int = u32("Global Lock")
    flags: int = u32("Flags")
    x_waking_vector: int = u64("64 Firmware Waking Vector")
    version: int = u8("Version")
    reserved: int = u24("Reserved")
    ospm_flags: int = u32("OSPM Flags")
    reserved2: bytes = octets(24, "Reserved")


@dataclass(frozen=True, kw_only=True)
class RawTable(Table):
    """Any table, as it is: what is not asked for is not changed, not even a wrong checksum.

    `revision` and `oem` are read from `data`. For other ones use `with_oem`, or make another of `build`.
    """

    data: bytes = b""

    def __post_init__(self) -> None:
        name = self.data[:4].decode("ascii", "replace")
        if self.is_facs:
            if len(self.data) < 8 or int.from_bytes(self.data[4:8], "little") != len(self.data):
                raise TableError("it has another length than it names", signature=name, offset=4, field="length")
            return
        header = Header.unpack(self.data)
        check_length(self.data, header)
        object.__setattr__(self, "revision", header.revision)
        object.__setattr__(self, "oem", header.oem)

    @classmethod
    def build(cls, signature: str, body: bytes, *, revision: int = 1, oem: Oem | None = None) -> Self:
        """A table with `body` behind a header made here."""
        try:
            raw = signature.encode("ascii")
        except UnicodeEncodeError:
            raw = b""
        if len(raw) != 4 or not 0 <= revision < 256:
            raise TableError(f"a table with the signature {signature!r} and revision {revision} cannot be")
        head = raw + (HEADER_SIZE + len(body)).to_bytes(4, "little") + bytes([revision, 0]) + (oem or Oem()).pack()
        return cls(data=with_checksum(head + body))

    @property
    def is_facs(self) -> bool:
        """Whether this is a FACS, which has no header."""
        return self.data[:4] == b"FACS"

    @property
    def signature(self) -> str:
        """Its four letters."""
        return self.data[:4].decode("ascii")

    @property
    def header(self) -> Header:
        """The header as it stands there; of a FACS what there is of it."""
        if self.is_facs:
            return Header(
                "FACS", len(self.data), self.data[32] if len(self.data) > 32 else 0, 0, Oem(b"", b"", 0, b"", 0)
            )
        return Header.unpack(self.data)

    def to_bytes(self) -> bytes:
        """The bytes as they came."""
        return self.data

    def with_oem(self, oem: Oem) -> Self:
        """The same with other OEM and creator fields, and the checksum for them; a FACS has none and stays."""
        if self.is_facs:
            return self
        return type(self)(data=with_checksum(self.data[:10] + oem.pack() + self.data[HEADER_SIZE:]))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The table in `data`, no byte more or less.

        Raises:
            TableError: it has no header, or one that names another length.
        """
        return cls(data=bytes(data))

    def fields(self) -> Iterator[FieldValue]:
        """The header's fields and, of a FACS, all; the rest is one field of bytes."""
        at = 0
        if not self.is_facs:
            yield from header_fields(self.data)
            at = HEADER_SIZE
        elif len(self.data) >= FacsFields.size_of():
            yield from FacsFields.unpack(self.data, 0, signature="FACS").walk(0)
            at = FacsFields.size_of()
        if at < len(self.data):
            yield FieldValue("data", "Data", at, len(self.data) - at, self.data[at:])
