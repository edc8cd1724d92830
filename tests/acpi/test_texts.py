"""Tables in the forms in which people send them are read; whatever a text has in it, reading it has an end."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.acpi.formats import acpidump, carray, hexdump
from qemu_sdei.acpi.formats.texts import plain
from qemu_sdei.acpi.parse import entries_of
from tests.acpi.blobs import AGDI, SDEI, SSDT, table
from tests.acpi.samples import HEST
from tests.examples import examples

DATA = HEST.to_bytes()
DUMP = acpidump.write([acpidump.Entry(DATA), acpidump.Entry(AGDI)])
HOLES = table(b"OEM1", bytes(100) + b"x" + bytes(200))
"""Rows that are the same."""


def ascii_of(row: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)


def rows(form: Callable[[int, bytes], str], data: bytes = DATA) -> str:
    return "".join(form(at, data[at : at + 16]) + "\n" for at in range(0, len(data), 16))


def xxd(at: int, row: bytes) -> str:
    pairs = " ".join(row.hex()[n : n + 4] for n in range(0, 2 * len(row), 4))
    return f"{at:08x}: {pairs:<39}  {ascii_of(row)}"


def canonical(at: int, row: bytes) -> str:
    return f"{at:08x}  {row[:8].hex(' ') + '  ' + row[8:].hex(' '):<48}  |{ascii_of(row)}|"


def acpiview(at: int, row: bytes) -> str:
    return f"{at:08X} : {row[:8].hex(' ').upper()} - {row[8:].hex(' ').upper()}   {ascii_of(row)}"


DUMPS: dict[str, bytes] = {
    "UTF-16, as PowerShell writes it": DUMP.replace("\n", "\r\n").encode("utf-16"),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + DUMP.encode(),
    "quoted in a mail": "".join(f"> {line}\n" for line in DUMP.splitlines()).encode(),
    "quoted twice": "".join(f">> {line}\n" for line in DUMP.splitlines()).encode(),
    "without blanks": "".join(line.lstrip() + "\n" for line in DUMP.splitlines()).encode(),
    "hard spaces": DUMP.replace("  ", "\u00a0 ").encode(),
    "a log": "".join(f"[    1.{n:06}] {line}\n" for n, line in enumerate(DUMP.splitlines())).encode(),
    "gzip": gzip.compress(DUMP.encode()),
    "gzip of tables": gzip.compress(DATA + AGDI),
    "C": carray.write([DATA, AGDI]).encode(),
    "digits": hexdump.write([DATA, AGDI]).encode(),
    "xxd": (rows(xxd) + rows(xxd, AGDI)).encode(),
    "xxd in a mail": b"Hello,\n\n" + "".join(f"> {line}\n" for line in rows(xxd, DATA + AGDI).splitlines()).encode(),
    "hexdump -C": rows(canonical, DATA + AGDI).encode(),
    "acpiview": (
        f" --------------- HEST Table --------------- \n\nAddress  : 0xF9000000\nLength   : {len(DATA)}\n\n"
        + rows(acpiview) + "\nTable Checksum : OK\n\n" + rows(acpiview, AGDI)
    ).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", DUMPS)
def test_the_tables_are_read(name: str) -> None:
    entries, faults = entries_of(DUMPS[name])
    assert faults == []
    assert [entry.data for entry in entries] == [DATA, AGDI]


@pytest.mark.parametrize(
    "command", [["xxd"], ["xxd", "-p"], ["xxd", "-i", "it"], ["hexdump", "-C"], ["od", "-A", "x", "-t", "x1"]],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("data", [DATA, SDEI, SSDT, HOLES], ids=["HEST", "SDEI", "SSDT", "OEM1"])
def test_what_tools_print_is_read(command: list[str], data: bytes, tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    (tmp_path / "it").write_bytes(data)
    words = command if "it" in command else [*command, "it"]
    text = subprocess.run(words, cwd=tmp_path, capture_output=True, check=True, timeout=30).stdout
    entries, faults = entries_of(text)
    assert faults == []
    assert [entry.data for entry in entries] == [data]


def test_what_is_cut_or_swells_is_refused() -> None:
    for data in (gzip.compress(DATA)[:-20], b"\x1f\x8b" + bytes(100), gzip.compress(bytes(64 << 20))):
        entries, (fault,) = entries_of(data)
        assert entries == []
        assert "gzip" in fault.message
    # A star stands for rows that are there, not for gigabytes.
    entries, _ = entries_of(b"00000000  48 45 53 54\n*\n0fffffff0  00 00\n")
    assert sum(len(entry.data) for entry in entries) < 1000


def test_a_row_that_is_missing_is_not_made_up() -> None:
    lines = rows(xxd).splitlines(keepends=True)
    (entry,), _ = entries_of("".join(lines[:3] + lines[4:]).encode())
    assert entry.data == DATA[:48]


@settings(max_examples=examples(150))
@given(st.text("0123456789abcdefHEST@x:|-*{}[]>., \n\t", max_size=400))
def test_any_text(text: str) -> None:
    entries, faults = entries_of(text.encode())
    assert entries or faults
    assert sum(len(entry.data) for entry in entries) <= 64 << 10


@settings(max_examples=examples(100))
@given(st.sampled_from(sorted(DUMPS)), st.integers(0, 5000), st.binary(max_size=3))
def test_any_damage(name: str, at: int, new: bytes) -> None:
    data = DUMPS[name]
    entries, faults = entries_of(data[:at] + new + data[at + len(new) :])
    assert entries or faults


def test_a_separator_that_is_no_space_of_a_dump() -> None:
    """Python's text has more white space than its hexadecimal digits may have between them."""
    dump = DUMPS["UTF-16, as PowerShell writes it"]
    assert dump[1438:1439] != b"\x1c"
    entries, faults = entries_of(dump[:1438] + b"\x1c" + dump[1439:])
    assert entries or faults


LONG = (">", "[", "<", "{", "/*", "/* ", " ", "\n", "0x1,", "0000: 48\n", "[ 1", "> [")


@pytest.mark.parametrize("part", LONG, ids=repr)
def test_long_lines_and_many_lines_have_an_end(part: str) -> None:
    many = part * (1_000_000 // len(part))
    for text in (many, "00000000: " + many, "UINT8 a[] = {0x00};\n" + many):
        entries, faults = entries_of(text.encode())
        assert entries or faults


def test_a_large_table_in_hexadecimal() -> None:
    """Its time is that of its size, not of the square: 2 MiB took two minutes."""
    data = table(b"OEM1", b"0123456789abcdef" * (128 << 10))
    (entry,), faults = entries_of(rows(xxd, data).encode())
    assert entry.data == data
    assert faults == []


def test_a_log_of_nothing_but_lines() -> None:
    """As lines in a list it would have many times its bytes."""
    text = b"> x\n" * (256 << 10)
    tracemalloc.start()
    try:
        assert plain(text)[0] == b"x\n" * (256 << 10)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(text)
    finally:
        tracemalloc.stop()
