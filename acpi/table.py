"""What all ACPI tables have in common: the header, the checksum, OEM ids (ACPI 6.5 5.2.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Self

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.layout import FieldValue, Struct

HEADER_SIZE: Final = 36
"""Bytes of the header that nearly all tables begin with."""
CHECKSUM_AT: Final = 9
MAX_SIZE: Final = 1 << 24
"""Bytes; what claims to be larger is no table. (Real DSDTs have up to some hundred KiB.)"""

_OEM_FIELDS: Final = (("oem_id", 6), ("oem_table_id", 8), ("creator_id", 4))


@dataclass(frozen=True)
class Oem:
    """Who made a table: the five OEM and creator fields of its header. What is too short is padded with spaces.

    Raises:
        TableError: a value does not fit.
    """

    oem_id: bytes = b"QSDEI "
    """6 bytes."""
    oem_table_id: bytes = b"QEMUSDEI"
    """8 bytes."""
    oem_revision: int = 1
    creator_id: bytes = b"QSDE"
    """4 bytes."""
    creator_revision: int = 1

    def __post_init__(self) -> None:
        for name, size in _OEM_FIELDS:
            value = getattr(self, name)
            if not isinstance(value, bytes) or len(value) > size:
                raise TableError(f"{value!r} does not fit into {size} bytes", field=name)
            object.__setattr__(self, name, value.ljust(size))
        for name in ("oem_revision", "creator_revision"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 <= value < 1 << 32:
                raise TableError(f"{value!r} is not a number of 32 bits", field=name)

    def pack(self) -> bytes:
        """The 26 bytes at offset 10 of a header."""
        return (
            self.oem_id + self.oem_table_id + self.oem_revision.to_bytes(4, "little")
            + self.creator_id + self.creator_revision.to_bytes(4, "little")
        )  # fmt: skip

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """From the 26 bytes at offset 10 of a header."""
        number = int.from_bytes
        return cls(data[:6], data[6:14], number(data[14:18], "little"), data[18:22], number(data[22:26], "little"))


@dataclass(frozen=True)
class Header:
    """A table's header.

    RSDP and FACS have another one: of theirs, `oem` and `checksum` may be made up of what is there.
    """

    signature: str
    length: int
    revision: int
    checksum: int
    oem: Oem

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The header at the start of `data`.

        Raises:
            TableError: `data` is shorter than a header, or starts with no signature.
        """
        signature = signature_of(data)
        if len(data) < HEADER_SIZE:
            raise TableError(
                f"cut short: a header has {HEADER_SIZE} bytes, here are {len(data)}",
                signature=signature, offset=len(data), field=_field_at(len(data)),
            )  # fmt: skip
        return cls(signature, int.from_bytes(data[4:8], "little"), data[8], data[9], Oem.unpack(data[10:36]))


def _field_at(offset: int) -> str:
    """The field of the header that `offset` lies in."""
    fields = (
        (4, "signature"), (8, "length"), (9, "revision"), (10, "checksum"), (16, "oem_id"), (24, "oem_table_id"),
        (28, "oem_revision"), (32, "creator_id"), (36, "creator_revision"),
    )  # fmt: skip
    return next((name for end, name in fields if offset < end), "")


def signature_of(data: bytes) -> str:
    """The signature that `data` starts with.

    Raises:
        TableError: there is none.
    """
    raw = data[:4]
    if len(raw) < 4 or not all(0x20 <= byte < 0x7F for byte in raw):
        raise TableError(
            f"no ACPI table: it would start with four letters, not {raw.hex(' ') or 'nothing'}",
            offset=0, field="signature",
        )  # fmt: skip
    return raw.decode("ascii")


def checksum(data: bytes | bytearray | memoryview) -> int:
    """The byte that makes the sum of `data` and it 0 modulo 256: 0 for a table whose checksum is right."""
    return -sum(data) & 0xFF


def with_checksum(data: bytes | bytearray | memoryview) -> bytes:
    """`data`, a table with the usual header, with the checksum at offset 9 put right.

    Raises:
        TableError: `data` is shorter than a header.
    """
    if len(data) < HEADER_SIZE:
        raise TableError(f"a table has at least {HEADER_SIZE} bytes, here are {len(data)}", offset=len(data))
    out = bytearray(data)
    out[CHECKSUM_AT] = 0
    out[CHECKSUM_AT] = checksum(out)
    return bytes(out)


def check_length(data: bytes, header: Header) -> None:
    """Refuse a table whose header names another length than it has.

    Raises:
        TableError: so it is.
    """
    if header.length != len(data) or header.length < HEADER_SIZE:
        raise TableError(
            f"the header names a length of {header.length} bytes, here are {len(data)}",
            signature=header.signature, offset=4, field="length",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Table(Struct):
    """A table. Its length and checksum are not kept: `to_bytes` computes them, so that they are right.

    `from_bytes` does not look at the checksum (`qemu_sdei.acpi.verify` does); what it cannot hold it refuses.
    """

    SIGNATURE: ClassVar[str] = ""
    REVISIONS: ClassVar[tuple[int, int] | None] = None
    """The oldest and the newest revision that is known here; None: `qemu_sdei.acpi.verify` says nothing of it."""
    ONCE: ClassVar[bool] = False
    """Whether a machine has one at most."""

    revision: int = 1
    oem: Oem = Oem()
    tail: bytes = b""
    """What follows the last field that is known here: newer revisions add fields."""

    def __post_init__(self) -> None:
        if not isinstance(self.revision, int) or not 0 <= self.revision < 256:
            raise TableError(f"{self.revision!r} is no revision", signature=self.signature, field="revision")
        try:
            super().__post_init__()
        except TableError as error:
            raise TableError(error.message, signature=self.signature, offset=error.offset, field=error.field) from None

    @property
    def signature(self) -> str:
        """Its four letters; of the RSDP eight."""
        return self.SIGNATURE

    @property
    def header(self) -> Header:
        """The header that `to_bytes` gives it."""
        return Header.unpack(self.to_bytes())

    def body(self) -> bytes:
        """What follows the header."""
        return self.pack()

    def to_bytes(self) -> bytes:
        """The table, with length and checksum.

        Raises:
            TableError: it would be larger than a table can be.
        """
        body = self.body() + self.tail
        size = HEADER_SIZE + len(body)
        if size > MAX_SIZE:
            raise TableError(f"{size} bytes are too many for a table", signature=self.signature)
        head = self.SIGNATURE.encode() + size.to_bytes(4, "little") + bytes([self.revision, 0]) + self.oem.pack()
        return with_checksum(head + body)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The table in `data`, no byte more or less.

        Raises:
            TableError: it is damaged, or another table.
        """
        data = bytes(data)
        header = Header.unpack(data)
        if header.signature != cls.SIGNATURE:
            raise TableError(
                f"this is no {cls.SIGNATURE} but {header.signature}",
                signature=header.signature, offset=0, field="signature",
            )  # fmt: skip
        check_length(data, header)
        return cls._from_body(data, header)

    @classmethod
    def _from_body(cls, data: bytes, header: Header) -> Self:
        values = cls.read(data, HEADER_SIZE, signature=cls.SIGNATURE)
        return cls(revision=header.revision, oem=header.oem, tail=data[HEADER_SIZE + cls.size_of() :], **values)

    def with_oem(self, oem: Oem) -> Self:
        """The same table with other OEM and creator fields."""
        return replace(self, oem=oem)

    def body_fields(self) -> Iterator[FieldValue]:
        """The fields that follow the header, without the tail."""
        yield from self.walk(HEADER_SIZE)

    def fields(self) -> Iterator[FieldValue]:
        """All fields, with their offsets."""
        data = self.to_bytes()
        yield from header_fields(data)
        yield from self.body_fields()
        if self.tail:
            size = len(self.tail)
            yield FieldValue("tail", "Unknown Data", len(data) - size, size, self.tail)


def header_fields(data: bytes) -> Iterator[FieldValue]:
    """The fields of the header of a table."""
    for name, title, at, size, number in (
        ("signature", "Signature", 0, 4, False),
        ("length", "Length", 4, 4, True),
        ("revision", "Revision", 8, 1, True),
        ("checksum", "Checksum", 9, 1, True),
        ("oem.oem_id", "OEM ID", 10, 6, False),
        ("oem.oem_table_id", "OEM Table ID", 16, 8, False),
        ("oem.oem_revision", "OEM Revision", 24, 4, True),
        ("oem.creator_id", "Creator ID", 28, 4, False),
        ("oem.creator_revision", "Creator Revision", 32, 4, True),
    ):
        value = data[at : at + size]
        yield FieldValue(name, title, at, size, int.from_bytes(value, "little") if number else value)
