"""A file that is not a table is called what it is, and a table never is."""

from __future__ import annotations

import gzip
import struct
import zlib

import pytest

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.kinds import what
from qemu_sdei.acpi.parse import entries_of, parse_file
from qemu_sdei.acpi.verify import verify
from tests.acpi.blobs import AGDI, SDEI, SSDT, table
from tests.acpi.samples import TABLES

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 1, 1, 8, 0, 0, 0, 0) + bytes(4)
FILES: dict[bytes, str] = {
    b"": "empty",
    bytes(100): "zeros",
    b"klog            line one\nline two of a kernel log\n": "text",
    b"HEST, and what it is good for: a text about a table\n": "text",
    b"[    0.000000] Booting Linux on physical CPU 0\n": "kernel log",
    b"<6>[    0.000000] Booting Linux\n": "kernel log",
    b"#!/bin/sh\necho hello world, this is a script\n": "script",
    b"/dts-v1/;\n/ { };\n": "device-tree source",
    b"\xd0\x0d\xfe\xed" + bytes(60): "DTB",
    b'DefinitionBlock ("", "SSDT", 2, "A", "B", 1) { }\n': "ASL",
    b"/*\n * Intel ACPI\n */\n[000h 0000   4]                    Signature : \"HEST\"\n": "iasl",
    b'{"tables": [1, 2, 3]}\n': "JSON",
    b"<?xml version='1.0'?><a/>\n": "XML",
    b'#include <stdio.h>\nint main(void) { return 0; }\n': "C source",
    b"\x7fELF\2\1\1" + bytes(60): "ELF",
    PNG: "PNG",
    gzip.compress(b"a text about tables", mtime=0): "text",
    gzip.compress(SDEI, mtime=0)[:20]: "gzip",
    b"070701" + b"0" * 104: "cpio",
    zlib.compress(SSDT * 9): "",
    b"hsqs" + bytes(range(200)): "binary data",
    "SDEI".encode("utf-16"): "UTF-16",
    "Grüße aus der Tabelle, die keine ist\n".encode("latin-1"): "text",
}  # fmt: skip


@pytest.mark.parametrize("data", FILES, ids=lambda data: repr(data[:16]))
def test_what_a_file_is_is_said(data: bytes) -> None:
    entries, faults = entries_of(data)
    assert entries == []
    (fault,) = faults
    assert FILES[data] in fault.message
    with pytest.raises(TableError):
        parse_file(data)
    assert [finding.signature for finding in verify(data)] == [""], "it has no name of a table"


@pytest.mark.parametrize("data", [each.to_bytes() for each in TABLES.values()] + [SSDT, table(b"oEm1", bytes(9))])
def test_no_table_is_taken_for_something_else(data: bytes) -> None:
    assert what(data) == ""
    # Nor is what is left of one.
    if data[:4] != b"oEm1":
        assert all(what(data[:size]) == "" for size in range(4, len(data)))


def test_one_odd_part_does_not_hide_the_tables_beside_it() -> None:
    lying = AGDI[:4] + (5000).to_bytes(4, "little") + AGDI[8:]
    short = AGDI[:4] + (40).to_bytes(4, "little") + AGDI[8:]
    for odd in (b"\xff\xfe rubbish", b"and some text between them\n", lying, short, b"\x7fELF"):
        entries, _ = entries_of(SDEI + odd + SSDT + odd + SDEI)
        data = [entry.data for entry in entries]
        assert [each for each in data if each in (SDEI, SSDT)] == [SDEI, SSDT, SDEI], odd
    entries, faults = entries_of(SDEI + b"rubbish of some sort" + SSDT)
    assert [fault.offset for fault in faults] == [36]
    assert len(entries) == 2


def test_a_search_for_tables_has_an_end() -> None:
    """Each of a million claims to be a table of megabytes."""
    evil = b"HEST" + (900_000).to_bytes(4, "little") + bytes([1] * 28)
    entries_of(evil * 30_000)
    entries_of(b"\xff" + evil * 30_000)
