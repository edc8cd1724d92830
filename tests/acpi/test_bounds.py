"""Tables and dumps that want to become more than they are. (Device trees: `test_fdt.py`.)"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from qemu_sdei.acpi.errors import AcpiError
from qemu_sdei.acpi.formats import acpidump, carray
from qemu_sdei.acpi.parse import entries_of, parse
from qemu_sdei.acpi.table import with_checksum

MIB = 1 << 20


def table(signature: bytes, body: bytes) -> bytes:
    """A table with this body."""
    return with_checksum(signature + (36 + len(body)).to_bytes(4, "little") + bytes([1, 0]) + bytes(26) + body)


def refused(work: Callable[[], object], match: str, most: int) -> None:
    """`work` is refused, and has not taken more than `most` bytes until then."""
    tracemalloc.start()
    try:
        with pytest.raises(AcpiError, match=match):
            work()
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_error_sources_without_end() -> None:
    """Four bytes each, as those of unknown types can be: a million in 4 MiB."""
    sources = b"\xff\x00\x04\x00" * MIB
    hest = table(b"HEST", MIB.to_bytes(4, "little") + sources)
    refused(lambda: parse(hest), "ids have 16 bits", 16 * MIB)


@pytest.mark.parametrize("signature", [b"XSDT", b"RSDT"])
def test_addresses_without_end(signature: bytes) -> None:
    root = table(signature, bytes(8 * MIB))
    refused(lambda: parse(root), "are the most", 24 * MIB)


def test_a_dump_of_nothing_but_lines() -> None:
    """Read line by line: a list of them would have many times their bytes."""
    text = b"SDEI @ 0x0\n" + b"\n" * (MIB // 2)
    refused(lambda: acpidump.read(text), "has no bytes", 2 * MIB)


def test_a_dump_of_nothing_but_tables() -> None:
    refused(lambda: acpidump.read(b"A @ 0x0\n  0000: 00\n" * 20_000), "more than 4096", 8 * MIB)


@pytest.mark.parametrize("lines", [b"A @ 0x0\n", b"A @ 0x0\n  0001: 00\n"], ids=["without bytes", "without a begin"])
def test_a_dump_of_nothing_but_faults(lines: bytes) -> None:
    """Each title can have one, and 64 MiB of these took gigabytes."""
    tracemalloc.start()
    try:
        entries, faults = acpidump.scan(lines * 20_000)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    assert (entries, len(faults)) == ([], acpidump.MAX_TABLES + 1)
    assert "more than 4096" in str(faults[-1])


@pytest.mark.parametrize("form", [carray.write, lambda tables: "".join(map(rows_of, tables))], ids=["C", "hexdump"])
def test_a_text_of_nothing_but_tables(form: Callable[[list[bytes]], str]) -> None:
    entries, (fault,) = entries_of(form([table(b"SDEI", b"")] * 5000).encode())
    assert len(entries) == acpidump.MAX_TABLES
    assert "more than 4096" in str(fault)


def rows_of(data: bytes) -> str:
    return "".join(f"{at:08x}: {data[at : at + 16].hex(' ')}\n" for at in range(0, len(data), 16))


def test_a_file_of_nothing_but_tables() -> None:
    """Those that were found are there, and what was wrong is said."""
    entries, (error,) = entries_of(b"FACS\x08\0\0\0" * 20_000)
    assert len(entries) == acpidump.MAX_TABLES
    assert "more than 4096" in str(error)
