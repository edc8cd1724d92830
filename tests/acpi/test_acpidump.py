"""acpidump text: ours is read by acpixtract, and others' is read by us."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.acpi import AcpiError
from qemu_sdei.acpi.formats.acpidump import Entry, looks_like, read, write
from tests.acpi.blobs import AGDI, SDEI, SSDT, table

BIG = table(b"SSDT", bytes(range(256)) * 300)
"""More than four digits of offset."""


@pytest.mark.skipif(shutil.which("acpixtract") is None, reason="no acpixtract")
def test_acpixtract_gets_the_same_bytes(tmp_path: Path) -> None:
    tables = {"sdei.dat": SDEI, "agdi.dat": AGDI, "ssdt1.dat": SSDT, "ssdt2.dat": BIG}
    (tmp_path / "dump").write_text(write(Entry(data) for data in tables.values()))
    result = subprocess.run(["acpixtract", "-a", "dump"], cwd=tmp_path, capture_output=True, timeout=30, check=False)
    assert result.returncode == 0, result.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".dat"} == tables


def test_rows_are_short_enough_for_fwts() -> None:
    rows = [line for line in write([Entry(BIG)]).splitlines() if line.startswith(" ")]
    assert len(rows) == (len(BIG) + 15) // 16
    # It cuts a line after 56 characters: the last byte must be before.
    assert all(
        bytes.fromhex(row[:56].partition(":")[2]) == BIG[n * 16 : n * 16 + 16] for n, row in enumerate(rows[:-1])
    )


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=70), st.integers(0, (1 << 64) - 1)), min_size=1, max_size=5))
def test_what_is_written_is_read_again(tables: list[tuple[bytes, int]]) -> None:
    entries = [Entry(data, address, "TEST") for data, address in tables]
    text = write(entries).encode()
    assert looks_like(text)
    assert read(text) == entries


def test_the_dump_of_a_server() -> None:
    """As acpidump of acpica prints it, with CRLF, and a mail around it; a row's text may look like bytes."""
    text = (
        b"Hi,\r\nhere is the dump:\r\n\r\n"
        b"RSD PTR @ 0x00000000BFED0014\r\n"
        b"    0000: 52 53 44 20 50 54 52 20 41 42 20 43                           RSD PTR AB C\r\n"
        b"\r\n"
        b"SDEI @ 0xfff0\r\n"
        b"    0000: 53 44 45 49 24 00 00 00 01 D6 4F 45 4D 49 44 20  SDEI$.....OEMID \r\n"
        b"    0010: 00 11                                            00 11\r\n"
        b"\r\n-- \r\n    0020: 55 66\r\n"
    )
    assert read(text) == [
        Entry(b"RSD PTR AB C", 0xBFED0014, "RSDP"),
        Entry(bytes.fromhex("53444549 24000000 01D6 4F454D494420 0011"), 0xFFF0, "SDEI"),
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "no table"),
        (b"SDEI @ nowhere\n", "no table"),
        (b"SDEI @ 0x0\n\n", "no bytes"),
        (b"SDEI @ 0x0\nHEST @ 0x0\n  0000: 00\n", "line 1.*SDEI has no bytes"),
        (b"SDEI @ 0x0\n  0000: 00 11\n  0010: 00\n", "line 3.*0x10, after 0x2"),
        (b"SDEI @ 0x0\n  0010: 00 11\n", "line 2"),
    ],
)
def test_damaged_text_is_refused(text: bytes, what: str) -> None:
    with pytest.raises(AcpiError, match=what):
        read(text)


@given(st.text(alphabet="SDEI @0x123abc:\n ", max_size=200).map(str.encode) | st.binary(max_size=200))
def test_any_text_is_read_or_refused(text: bytes) -> None:
    looks_like(text)
    try:
        entries = read(text)
    except AcpiError:
        return
    assert all(entry.data for entry in entries)
