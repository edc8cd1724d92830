"""Rules for the instructions of EINJ and ERST (ACPI 6.5 18.5.1.2, 18.6.2)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from qemu_sdei.acpi.rules import gas
from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.tables.action import PRESERVE_REGISTER, Entry

READS_OR_WRITES: Final = frozenset(range(4))
"""Instructions that each of them has, and that need a register."""


def check(
    report: Report, count: int, entries: Sequence[Entry], actions: Collection[int], instructions: Collection[int],
    registers: Collection[int] = READS_OR_WRITES,
) -> None:  # fmt: skip
    """Check all entries.

    Args:
        report: takes the findings.
        count: how many the table names.
        entries: those that are there.
        actions: the actions that there are.
        instructions: the instructions that there are.
        registers: those of them that need a register.
    """
    if count != len(entries):
        report.error("entry_count", f"it names {count} entries, {len(entries)} are there")
    for number, each in enumerate(entries):
        name = f"entries[{number}]"
        if each.action not in actions:
            report.warning(f"{name}.action", f"action {each.action:#x} is not in ACPI 6.5")
        if each.instruction not in instructions:
            report.error(f"{name}.instruction", f"instruction {each.instruction:#x} is not in ACPI 6.5")
        elif each.instruction in registers:
            if not each.register.address:
                report.error(f"{name}.register.address", "it is 0: there is no register to read or write")
            else:
                gas.check(report, f"{name}.register", each.register, plain_only=True)
        report.reserved(f"{name}.flags", each.flags, 0xFF & ~PRESERVE_REGISTER)
        report.reserved(f"{name}.reserved", each.reserved)
