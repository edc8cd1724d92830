"""Tables that a program makes itself: a value that cannot be is refused where it is given, with what is wrong."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.kinds import what
from qemu_sdei.acpi.own import GhesSource, own_tables
from qemu_sdei.acpi.parse import parse
from qemu_sdei.acpi.rules.madt import processors
from qemu_sdei.acpi.table import HEADER_SIZE, with_checksum
from qemu_sdei.acpi.tables.agdi import Agdi
from qemu_sdei.acpi.tables.hest import OpaqueSource
from qemu_sdei.acpi.tables.sdei import Sdei
from tests.acpi.blobs import table


def source(event: int, status: int = 0x1000, ack: int | None = 0x1008) -> GhesSource:
    return GhesSource(event, status, 4096, ack)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"ghes": [source(0)]}, "event 0 is the software-signalled one"),
        ({"ghes": [source(5), source(5, 0x2000, None)]}, r"event 0x5 is already that of HEST sources\[0\]"),
        ({"ghes": [source(5)], "agdi_event": 5}, r"event 0x5 is already that of HEST sources\[0\]"),
        ({"agdi_event": 0}, "event 0 is the software-signalled one"),
        ({"ghes": [source(5), source(6, 0x1008, None)]}, r"0x1008 is already that of sources\[0\]\.read_ack"),
    ],
)
def test_our_own_tables(arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(TableError, match=why):
        own_tables(**arguments)


def test_our_own_tables_in_each_mode() -> None:
    assert own_tables(sdei=False) == []
    assert [each.signature for each in own_tables()] == ["SDEI"]
    for arguments, mode in (({"agdi_event": 5}, 0), ({"agdi_gsiv": 90}, 1), ({"agdi_event": 5, "agdi_gsiv": 90}, 2)):
        (agdi,) = own_tables(sdei=False, **arguments)  # type: ignore[arg-type]
        assert isinstance(agdi, Agdi)
        assert agdi.mode == mode


@pytest.mark.parametrize("revision", [-1, 256, "1"])
def test_revisions(revision: Any) -> None:
    with pytest.raises(TableError, match="is no revision"):
        Sdei(revision=revision)


@pytest.mark.parametrize("event", [-1, 1 << 32, "5", 1.5])
def test_numbers(event: Any) -> None:
    with pytest.raises(TableError, match="is not a number of 32 bits"):
        Agdi(sdei_event=event)


def test_structures() -> None:
    with pytest.raises(TableError, match="no source of type 9 with 0 bytes"):
        OpaqueSource(type=9)
    assert OpaqueSource(type=99, source_id=6, rest=b"ab").pack().endswith(b"ab")


def test_too_short_for_a_checksum() -> None:
    with pytest.raises(TableError, match=f"a table has at least {HEADER_SIZE} bytes, here are 35"):
        with_checksum(bytes(HEADER_SIZE - 1))


def test_too_large_for_a_table() -> None:
    with pytest.raises(TableError, match="are too many for a table"):
        Sdei(tail=bytes(1 << 24)).to_bytes()


@pytest.mark.parametrize("rest", [b"\x0b\x01", b"\x0b\x50" + bytes(10), b"\x0b"], ids=["size 1", "cut", "one byte"])
def test_processors_as_far_as_they_can_be_followed(rest: bytes) -> None:
    """The structures of a MADT: those before the damage are told; others than CPUs are passed over."""
    cpu = bytearray(struct.pack("<BB", 0x0B, 80) + bytes(78))
    cpu[12] = 1
    other = struct.pack("<BB", 0x0C, 24) + bytes(22)
    madt = parse(table(b"APIC", bytes(8) + other + bytes(cpu) + rest, revision=5))
    assert [each.usable for each in processors(madt)] == [True]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "an empty file"),
        (bytes(100), "nothing but zeros"),
        (bytes(257) + b"ustar", "a tar archive"),
        (b"MZ" + bytes(100) + b"PE\0\0", "an EFI or Windows program"),
        (b'{"a": 1}', "JSON"),
        (b"RSD PTR " + bytes(28), ""),
        (table(b"XXXX", b""), ""),
    ],
)
def test_files_that_are_something_else(data: bytes, said: str) -> None:
    assert what(data).startswith(said)
    assert bool(what(data)) == bool(said)
