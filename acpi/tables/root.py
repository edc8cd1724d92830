"""Where the tables are: RSDP, RSDT and XSDT (ACPI 6.5 5.2.5, 5.2.7, 5.2.8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.layout import FieldValue, Struct, octets, u8, u24, u32, u64
from qemu_sdei.acpi.table import HEADER_SIZE, MAX_SIZE, Header, Oem, Table, checksum

RSDP_SIGNATURE: Final = b"RSD PTR "
MAX_ENTRIES: Final = 1 << 16
"""Tables that an RSDT or XSDT may name; the largest servers have some hundred."""


@dataclass(frozen=True, kw_only=True)
class PointerTable(Table):
    """What RSDT and XSDT have in common."""

    WIDTH: ClassVar[int]

    entries: tuple[int, ...] = ()
    """Physical addresses of the tables, in their order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "entries", tuple(self.entries))
        for number, entry in enumerate(self.entries):
            if not isinstance(entry, int) or not 0 <= entry < 1 << 8 * self.WIDTH:
                raise TableError(
                    f"{entry!r} is no address of {8 * self.WIDTH} bits",
                    signature=self.SIGNATURE, offset=HEADER_SIZE + number * self.WIDTH, field=f"entries[{number}]",
                )  # fmt: skip

    def body(self) -> bytes:
        """The addresses."""
        return b"".join(entry.to_bytes(self.WIDTH, "little") for entry in self.entries)

    @classmethod
    def _from_body(cls, data: bytes, header: Header) -> Self:
        count, rest = divmod(len(data) - HEADER_SIZE, cls.WIDTH)
        if rest:
            raise TableError(
                f"cut short: an address has {cls.WIDTH} bytes and {rest} are left",
                signature=cls.SIGNATURE, offset=len(data) - rest, field=f"entries[{count}]",
            )  # fmt: skip
        if count > MAX_ENTRIES:
            raise TableError(
                f"it names {count} tables; {MAX_ENTRIES} are the most",
                signature=cls.SIGNATURE, offset=4, field="length",
            )  # fmt: skip
        starts = range(HEADER_SIZE, len(data), cls.WIDTH)
        entries = tuple(int.from_bytes(data[at : at + cls.WIDTH], "little") for at in starts)
        return cls(revision=header.revision, oem=header.oem, entries=entries)

    def body_fields(self) -> Iterator[FieldValue]:
        """The addresses."""
        for number, entry in enumerate(self.entries):
            at = HEADER_SIZE + number * self.WIDTH
            yield FieldValue(f"entries[{number}]", f"Table Address {number}", at, self.WIDTH, entry)


@dataclass(frozen=True, kw_only=True)
class Xsdt(PointerTable):
    """The `entries`: addresses of all tables, of 64 bits."""

    SIGNATURE: ClassVar[str] = "XSDT"
    REVISIONS: ClassVar[tuple[int, int]] = (1, 1)
    ONCE: ClassVar[bool] = True
    WIDTH: ClassVar[int] = 8


@dataclass(frozen=True, kw_only=True)
class Rsdt(PointerTable):
    """The same by addresses of 32 bits, for systems that know no XSDT."""

    SIGNATURE: ClassVar[str] = "RSDT"
    REVISIONS: ClassVar[tuple[int, int]] = (1, 1)
    ONCE: ClassVar[bool] = True
    WIDTH: ClassVar[int] = 4


@dataclass(frozen=True, kw_only=True)
class _First(Struct):
    signature: bytes = octets(8, "Signature", default=RSDP_SIGNATURE)
    checksum: int = u8("Checksum")
    oem_id: bytes = octets(6, "OEM ID")
    revision: int = u8("Revision")
    rsdt_address: int = u32("RSDT Address")


@dataclass(frozen=True, kw_only=True)
class _Second(Struct):
    length: int = u32("Length", default=36)
    xsdt_address: int = u64("XSDT Address")
    extended_checksum: int = u8("Extended Checksum")
    reserved: int = u24("Reserved")


@dataclass(frozen=True, kw_only=True)
class Rsdp(Table):
    """The root pointer: 20 bytes in revision 0 (ACPI 1.0), 36 from revision 2 on.

    It has no common header; of `oem` only `oem_id` is in it. `to_bytes` computes both checksums.
    """

    SIGNATURE: ClassVar[str] = "RSD PTR "
    ONCE: ClassVar[bool] = True

    revision: int = 2
    rsdt_address: int = 0
    """Physical address of the RSDT, 32 bits; 0 if there is none."""
    xsdt_address: int = 0
    """Physical address of the XSDT; revision 2 and newer."""
    reserved: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "oem", Oem(self.oem.oem_id, b"", 0, b"", 0))
        super().__post_init__()
        try:
            _First(revision=self.revision, oem_id=self.oem.oem_id, rsdt_address=self.rsdt_address)
            _Second(xsdt_address=self.xsdt_address, reserved=self.reserved)
        except TableError as error:
            raise TableError(error.message, signature=self.SIGNATURE, field=error.field) from None
        if self.revision < 2 and (self.xsdt_address or self.tail):
            raise TableError(
                f"revision {self.revision} has no XSDT address", signature=self.SIGNATURE, field="xsdt_address"
            )

    @property
    def header(self) -> Header:
        """What the RSDP has of a header."""
        data = self.to_bytes()
        return Header(self.SIGNATURE, len(data), self.revision, data[8], self.oem)

    def to_bytes(self) -> bytes:
        """The RSDP, with its checksums."""
        first = _First(revision=self.revision, oem_id=self.oem.oem_id, rsdt_address=self.rsdt_address)
        data = bytearray(first.pack())
        data[8] = checksum(data)
        if self.revision >= 2:
            second = _Second(length=36 + len(self.tail), xsdt_address=self.xsdt_address, reserved=self.reserved)
            data += second.pack() + self.tail
            data[32] = checksum(data)
        return bytes(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The RSDP in `data`, no byte more or less.

        Raises:
            TableError: it is damaged.
        """
        data = bytes(data)
        name = cls.SIGNATURE
        first = _First.unpack(data, 0, signature=name)
        if first.signature != RSDP_SIGNATURE:
            raise TableError("this is no RSDP", signature=name, offset=0, field="signature")
        oem = Oem(first.oem_id, b"", 0, b"", 0)
        if first.revision < 2:
            if len(data) != first.size_of():
                raise TableError(
                    f"one of revision {first.revision} has {first.size_of()} bytes, here are {len(data)}",
                    signature=name, offset=15, field="revision",
                )  # fmt: skip
            return cls(revision=first.revision, oem=oem, rsdt_address=first.rsdt_address)
        second = _Second.unpack(data, first.size_of(), signature=name)
        if second.length != len(data) or len(data) > MAX_SIZE:
            raise TableError(
                f"it names a length of {second.length} bytes, here are {len(data)}",
                signature=name, offset=20, field="length",
            )  # fmt: skip
        return cls(
            revision=first.revision, oem=oem, rsdt_address=first.rsdt_address,
            xsdt_address=second.xsdt_address, reserved=second.reserved, tail=data[36:],
        )  # fmt: skip

    def fields(self) -> Iterator[FieldValue]:
        """All fields."""
        data = self.to_bytes()
        yield from _First.unpack(data, 0, signature=self.SIGNATURE).walk(0)
        if self.revision >= 2:
            yield from _Second.unpack(data, 20, signature=self.SIGNATURE).walk(20)
            if self.tail:
                yield FieldValue("tail", "Unknown Data", 36, len(self.tail), self.tail)
