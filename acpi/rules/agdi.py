"""Rules for AGDI (DEN0093, chapter "AGDI")."""

from __future__ import annotations

from qemu_sdei.acpi.rules.registry import rules_for
from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.tables.agdi import MODE_MASK, Agdi, SignalingMode


@rules_for(Agdi)
def check(report: Report, table: Agdi) -> None:
    """Check the whole table.

    Errors: mode 3; SDEI event 0.
    Warnings: event or interrupt that the mode does not use.
    """
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
