"""Rules for the small tables: SDEI, AGDI, BERT, RSDT, XSDT, RSDP, FACS."""

from __future__ import annotations

from typing import Final

from acpi.rules.hest import MIN_BLOCK
from acpi.rules.report import Report
from acpi.table import checksum
from acpi.tables.agdi import MODE_MASK, Agdi, SignalingMode
from acpi.tables.bert import Bert
from acpi.tables.raw import FacsFields
from acpi.tables.root import Rsdp, Rsdt, Xsdt

_RSDP_0: Final = 20


def agdi(report: Report, table: Agdi) -> None:
    """DEN0093, chapter "AGDI"."""
    report.reserved("flags", table.flags, 0xFF & ~MODE_MASK)
    report.reserved("reserved", table.reserved)
    by_sdei = table.mode in (SignalingMode.SDEI, SignalingMode.SDEI_AND_INTERRUPT)
    by_interrupt = table.mode in (SignalingMode.INTERRUPT, SignalingMode.SDEI_AND_INTERRUPT)
    if not by_sdei and not by_interrupt:
        report.error("flags", f"signalling mode {table.mode} is reserved")
        return
    if by_sdei and table.sdei_event == 0:
        report.error("sdei_event", "SDEI event 0 is the software-signalled one: firmware cannot use it for this")
    if not by_sdei and table.sdei_event:
        report.warning("sdei_event", f"it is {table.sdei_event:#x}, and the mode has no SDEI event")
    if not by_interrupt and table.gsiv:
        report.warning("gsiv", f"it is {table.gsiv}, and the mode has no interrupt")


def bert(report: Report, table: Bert) -> None:
    """ACPI 6.5 18.3.1."""
    if table.region_length < MIN_BLOCK:
        report.error("region_length", f"{table.region_length} bytes: an error status block has at least {MIN_BLOCK}")
    if not table.region_address:
        report.error("region_address", "it is 0: there is no boot error region")


def pointers(report: Report, table: Xsdt | Rsdt) -> None:
    """ACPI 6.5 5.2.7, 5.2.8."""
    if not table.entries:
        report.warning("", "it names no tables")
    first: dict[int, int] = {}
    for number, entry in enumerate(table.entries):
        if entry == 0:
            report.error(f"entries[{number}]", "the address is 0")
        elif entry in first:
            report.warning(f"entries[{number}]", f"{entry:#x} is already entries[{first[entry]}]")
        first.setdefault(entry, number)


def rsdp(report: Report, data: bytes, table: Rsdp) -> None:
    """ACPI 6.5 5.2.5.3."""
    if wrong := sum(data[:_RSDP_0]) & 0xFF:
        right = (data[8] - wrong) & 0xFF
        report.error("checksum", f"it is {data[8]:#04x}, for the first 20 bytes {right:#04x} is right")
    if table.revision == 1:
        report.warning("revision", "there was no revision 1: 0 is that of ACPI 1.0, 2 of all newer")
    elif table.revision > 2:
        report.warning("revision", f"revision {table.revision} is newer than ACPI 6.5 has (2)")
    if table.revision < 2:
        if not table.rsdt_address:
            report.error("rsdt_address", "it is 0: there is no RSDT")
        return
    if checksum(data):
        right = (data[32] + checksum(data)) & 0xFF
        report.error("extended_checksum", f"it is {data[32]:#04x}, for the whole {right:#04x} is right")
    if not table.xsdt_address:
        # ACPI 6.5 5.2.5.3 wants an XSDT; with an RSDT alone a system still works.
        say = report.warning if table.rsdt_address else report.error
        say("xsdt_address", "it is 0: there is no XSDT")
    report.reserved("reserved", table.reserved)


def facs(report: Report, data: bytes) -> None:
    """ACPI 6.5 5.2.10."""
    if len(data) < FacsFields.size_of():
        report.error("length", f"{len(data)} bytes: a FACS has at least {FacsFields.size_of()}", 4)
        return
    fields = FacsFields.unpack(data, 0, signature="FACS")
    if fields.version > 2:
        report.warning("version", f"version {fields.version} is newer than ACPI 6.5 has (2)")
    report.reserved("reserved", fields.reserved)
    report.reserved("reserved2", fields.reserved2)
    report.reserved("flags", fields.flags, 0xFFFF_FFFC)
