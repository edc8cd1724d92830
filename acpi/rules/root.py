"""Rules for RSDT, XSDT (ACPI 6.5 5.2.7, 5.2.8) and the RSDP, whose form is another one (5.2.5.3)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.acpi.rules.registry import rules_for
from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.table import checksum
from qemu_sdei.acpi.tables.root import PointerTable, Rsdp, Rsdt, Xsdt

_RSDP_0: Final = 20


@rules_for(Xsdt, Rsdt)
def pointers(report: Report, table: PointerTable) -> None:
    """Check what an RSDT or XSDT names.

    Errors: an address of 0.
    Warnings: no entries, an address twice.
    """
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
