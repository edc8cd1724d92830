"""The text of `acpidump`: what people attach to bug reports, and what acpixtract and fwts read.

    SDEI @ 0x0000000000000000
      0000: 53 44 45 49 24 00 00 00 01 D6 4F 45 4D 49 44 20  SDEI$.....OEMID

Two spaces and four digits before the colon: fwts cuts each line after 56 characters.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from qemu_sdei.acpi.errors import AcpiError

MAX_TABLE: Final = 16 << 20
"""Bytes of one table in a dump; an offset beyond is a damaged line, not a table."""

MAX_TABLES: Final = 4096
"""Tables in one dump, or in one file; the largest servers have some hundred."""

_TITLE: Final = re.compile(r"^\s*(\S(?:.{0,7}\S)?)\s*@\s*(0x[0-9a-fA-F]{1,16})\s*$")
_ROW: Final = re.compile(r"^\s*([0-9a-fA-F]{4,8}):((?:\s[0-9a-fA-F]{2}){1,16})(?:\s|$)", re.ASCII)
_OLD_NAMES: Final = {"RSD PTR": "RSDP", "RSD PTR ": "RSDP"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One table of a dump: its bytes as they were there, whole or not."""

    data: bytes
    address: int = 0
    """Physical address that it was read from; 0 if that is not known."""
    name: str = ""
    """As the dump calls it; "": its signature."""


def looks_like(data: bytes) -> bool:
    """Whether `data` is such a text rather than tables in binary."""
    head = data[: 64 << 10]
    if b"\0" in head:
        return False
    return any(_TITLE.match(line) for line in head.decode("latin-1").splitlines())


def write(tables: Iterable[Entry]) -> str:
    """The text for `tables`, in their order."""
    out: list[str] = []
    for entry in tables:
        out.append(f"{entry.name or _signature(entry.data)} @ 0x{entry.address:016X}")
        for at in range(0, len(entry.data), 16):
            row = entry.data[at : at + 16]
            text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
            out.append(f"  {at:04X}: {row.hex(' ').upper():<47}  {text}")
        out.append("")
    return "\n".join(out) + "\n" if out else ""


def read(text: bytes) -> list[Entry]:
    """The tables in a dump. Lines that belong to none (a mail around it, log lines) are passed over.

    Raises:
        AcpiError: no table is in it, or a table's rows do not follow each other.
    """
    entries, faults = scan(text)
    if faults:
        raise faults[0]
    return entries


def scan(text: bytes) -> tuple[list[Entry], list[AcpiError]]:
    """The tables in a dump, and what is wrong with its lines: a table whose rows do not follow each other ends there.

    At most one fault for each table, of which `MAX_TABLES` are looked at, and one if there is no table.
    """
    entries: list[Entry] = []
    faults: list[AcpiError] = []
    name, address, data, open_ = "", 0, bytearray(), False
    title_line = titles = 0

    def close() -> None:
        if open_ and data:
            entries.append(Entry(bytes(data), address, name))
        elif open_:
            faults.append(AcpiError(f"line {title_line} of the dump: {name} has no bytes"))

    # Line by line: a list of all would have many times the bytes of a text of short ones.
    for number, line in enumerate(io.TextIOWrapper(io.BytesIO(text), "latin-1"), 1):
        if (title := _TITLE.match(line)) is not None:
            close()
            titles += 1
            if titles > MAX_TABLES:
                faults.append(AcpiError(f"line {number} of the dump: more than {MAX_TABLES} tables"))
                open_ = False
                break
            name, address = _OLD_NAMES.get(title[1], title[1]), int(title[2], 16)
            data, open_, title_line = bytearray(), True, number
        elif open_ and (row := _ROW.match(line)) is not None:
            offset = int(row[1], 16)
            if offset != len(data) or offset >= MAX_TABLE:
                faults.append(
                    AcpiError(
                        f"line {number} of the dump: {name} goes on at offset {offset:#x}, after {len(data):#x} bytes"
                    )
                )
                if data:
                    close()
                open_ = False
                continue
            data += bytes.fromhex(row[2])
        elif open_ and line.strip() == "" and data:
            close()
            open_ = False
    close()
    if not entries and not faults:
        faults.append(AcpiError("no table is in this acpidump text"))
    return entries, faults


def _signature(data: bytes) -> str:
    if data[:8] == b"RSD PTR ":
        return "RSDP"
    text = data[:4].decode("ascii", "replace")
    return text if len(text) == 4 and text.isascii() and text.isprintable() and " " not in text else "????"
