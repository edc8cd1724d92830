"""Rules for GTDT (ACPI 6.5 5.2.25)."""

from __future__ import annotations

from qemu_sdei.acpi.rules.registry import rules_for
from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.tables.gtdt import SIZES, GtBlock, Gtdt, TimerFrame
from qemu_sdei.acpi.tables.structures import name_of

_RESERVED = 0xFFFF_FFF8


@rules_for(Gtdt)
def check(report: Report, table: Gtdt) -> None:
    """Check the whole table.

    Errors: platform timers that are not there; a GT block with more timers than it has room for, or than 8.
    Warnings: shorter than its revision; no interrupt of the EL1 timers; reserved bits.
    """
    wanted = SIZES[max(1, min(table.revision, 3))]
    if table.size < wanted:
        report.warning("length", f"revision {table.revision} has {wanted} bytes, this table {table.size}", 4)
    if table.timer_count and table.timer_count != len(table.timers):
        report.error("timer_count", f"it names {table.timer_count} platform timers, {len(table.timers)} are there")
    if not table.el1_interrupt and not table.virtual_interrupt:
        report.warning("el1_interrupt", "neither the physical nor the virtual timer of EL1 has an interrupt")
    for name in ("secure_el1_flags", "el1_flags", "virtual_flags", "el2_flags", "el2_virtual_flags"):
        report.reserved(name, getattr(table, name), _RESERVED)
    blocks = [each for each in table.timers if isinstance(each, GtBlock)]
    for number, each in enumerate(blocks):
        name = f"{name_of(each)}[{number}].timer_count"
        if each.timer_count > 8:
            report.error(name, f"it names {each.timer_count} timers: a block has 8 at most")
        elif each.timer_offset + each.timer_count * TimerFrame.size_of() > each.length:
            report.error(
                name, f"{each.timer_count} timers from {each.timer_offset:#x} on are beyond its {each.length} bytes"
            )
