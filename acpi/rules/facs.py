"""Rules for the FACS, which has neither header nor class of its own (ACPI 6.5 5.2.10)."""

from __future__ import annotations

from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.tables.raw import FacsFields


def check(report: Report, data: bytes) -> None:
    """Check `data`, the whole of it."""
    if len(data) < FacsFields.size_of():
        report.error("length", f"{len(data)} bytes: a FACS has at least {FacsFields.size_of()}", 4)
        return
    fields = FacsFields.unpack(data, 0, signature="FACS")
    if fields.version > 2:
        report.warning("version", f"version {fields.version} is newer than ACPI 6.5 has (2)")
    report.reserved("reserved", fields.reserved)
    report.reserved("reserved2", fields.reserved2)
    report.reserved("flags", fields.flags, 0xFFFF_FFFC)
