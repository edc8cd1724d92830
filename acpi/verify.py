"""Check a table by the rules of ACPI 6.5, or of the revision that the table itself has. All faults are listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.formats.acpidump import Entry
from qemu_sdei.acpi.kinds import what
from qemu_sdei.acpi.parse import parse, parse_any
from qemu_sdei.acpi.rules import RULES, facs, root, whole
from qemu_sdei.acpi.rules.report import Finding, Report, Severity
from qemu_sdei.acpi.table import CHECKSUM_AT, HEADER_SIZE, MAX_SIZE, checksum, signature_of
from qemu_sdei.acpi.tables import KINDS
from qemu_sdei.acpi.tables.raw import RawTable
from qemu_sdei.acpi.tables.root import RSDP_SIGNATURE, Rsdp

__all__ = ["Finding", "Severity", "verify", "verify_set"]

_WITH_LENGTH: Final = 8


def verify(data: bytes | bytearray | memoryview) -> list[Finding]:
    """Everything that is wrong with the table in `data`, whatever the bytes are; an empty list if nothing is.

    It looks at the table alone, not at what its addresses point to.
    """
    data = bytes(data)
    if data[:8] == RSDP_SIGNATURE:
        return _root(data)
    report = Report("")
    if kind := what(data):
        report.error("signature", f"not an ACPI table: {kind}", 0)
        return report.findings
    try:
        report.signature = signature_of(data)
    except TableError as error:
        report.error("signature", error.message, 0)
        return report.findings
    if len(data) < (_WITH_LENGTH if report.signature == "FACS" else HEADER_SIZE):
        report.error("length", f"cut short: {len(data)} bytes are no table", len(data))
        return report.findings
    if len(data) > MAX_SIZE:
        report.error("length", f"{len(data)} bytes are too many for a table: {MAX_SIZE} are the most", 4)
        return report.findings
    data = _length(report, data)
    if report.signature == "FACS":
        report.fields = RawTable(data=data[:4] + len(data).to_bytes(4, "little") + data[8:]).fields
        facs.check(report, data)
        return report.findings
    if wrong := checksum(data):
        right = (data[CHECKSUM_AT] + wrong) & 0xFF
        report.error("checksum", f"it is {data[CHECKSUM_AT]:#04x}, and {right:#04x} is right", CHECKSUM_AT)
    # The length was dealt with above: what follows is about the rest.
    _content(report, data[:4] + len(data).to_bytes(4, "little") + data[8:])
    return report.findings


def verify_set(tables: Sequence[Entry | bytes], *, conduit: whole.Conduit | None = None) -> list[whole.SetFinding]:
    """What is wrong between the tables of one machine, each of which `verify` looks at alone.

    Two users of one SDEI event, events without SDEI table, registers of error sources that overlap, tables of which
    there can be one only, a FADT that does not fit the CPUs in the MADT or `conduit`, the instruction ("smc", "hvc")
    that reaches the firmware.
    """
    entries = [table if isinstance(table, Entry) else Entry(bytes(table)) for table in tables]
    return whole.check([whole.Member(parse_any(entry.data), entry.address) for entry in entries], conduit)


def _length(report: Report, data: bytes) -> bytes:
    """The bytes that belong to the table; complains if that is not clear."""
    named = int.from_bytes(data[4:8], "little")
    least = _WITH_LENGTH if report.signature == "FACS" else HEADER_SIZE
    if named < least:
        report.error("length", f"it is {named}: no table has less than {least} bytes", 4)
    elif named > len(data):
        report.error("length", f"it is {named}, here are {len(data)} bytes: the table is cut short", 4)
    elif named < len(data):
        # ACPICA, and with it Linux, maps what the length says; acpidump and people's files have had more than that.
        report.warning(
            "length",
            f"it is {named}, here are {len(data)} bytes: the last {len(data) - named} do not belong to the table, and "
            "operating systems do not look at them",
            4,
        )
        return data[:named]
    return data


def _content(report: Report, data: bytes) -> None:
    kind = KINDS.get(report.signature)
    known = None if kind is None else kind.REVISIONS
    newer = known is not None and data[8] > known[1]
    if known is not None and newer:
        report.warning("revision", f"revision {data[8]} is newer than the newest known here ({known[1]})", 8)
    elif known is not None and data[8] < known[0]:
        report.warning("revision", f"it is {data[8]}, the first is {known[0]}", 8)
    try:
        table = parse(data)
    except TableError as error:
        report.error(error.field, error.message, error.offset)
        return
    report.fields = table.fields
    if table.tail and not newer:
        report.warning("tail", f"{len(table.tail)} bytes behind the last field")
    if (rules := RULES.get(type(table))) is not None:
        rules(report, table)


def _root(data: bytes) -> list[Finding]:
    report = Report("RSD PTR ")
    size = 20 if len(data) > 15 and data[15] < 2 else int.from_bytes(data[20:24], "little")
    if len(data) >= 36 and size > 20 and size != len(data):
        say = report.warning if 36 <= size < len(data) else report.error
        say("length", f"it is {size}, here are {len(data)} bytes", 20)
        data = data[:size] if 36 <= size < len(data) else data
        data = data[:20] + len(data).to_bytes(4, "little") + data[24:]
    elif size == 20 and len(data) > 20:
        report.warning("revision", f"one of revision {data[15]} has 20 bytes, here are {len(data)}", 15)
        data = data[:20]
    try:
        table = Rsdp.from_bytes(data)
    except TableError as error:
        report.error(error.field, error.message, error.offset)
        return report.findings
    report.fields = table.fields
    root.rsdp(report, data, table)
    return report.findings
