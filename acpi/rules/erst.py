"""Rules for ERST (ACPI 6.5 18.5)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.acpi.rules import action
from qemu_sdei.acpi.rules.registry import rules_for
from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.tables.erst import Erst, ErstAction, ErstInstruction

_NEEDED: Final = (
    ErstAction.BEGIN_WRITE_OPERATION,
    ErstAction.BEGIN_READ_OPERATION,
    ErstAction.END_OPERATION,
    ErstAction.SET_RECORD_OFFSET,
    ErstAction.EXECUTE_OPERATION,
    ErstAction.CHECK_BUSY_STATUS,
    ErstAction.GET_COMMAND_STATUS,
    ErstAction.GET_ERROR_LOG_ADDRESS_RANGE,
    ErstAction.GET_ERROR_LOG_ADDRESS_RANGE_LENGTH,
)


@rules_for(Erst)
def check(report: Report, table: Erst) -> None:
    """Check the whole table.

    Errors: entries that are not there; an instruction that does not exist, or has no register.
    Warnings: an action that keeping a record needs and that is not there; actions that ACPI 6.5 does not have; a header
    of another size; reserved bits.
    """
    if table.header_size not in (12, 48):
        report.warning("header_size", f"it is {table.header_size}: 48, and 12 in tables of old, is what systems take")
    report.reserved("reserved", table.reserved)
    action.check(report, table.entry_count, table.entries, set(ErstAction), set(ErstInstruction))
    there = {each.action for each in table.entries}
    if missing := [each.name for each in _NEEDED if each not in there]:
        report.warning("entry_count", f"no entry for {', '.join(missing)}: to keep a record takes it")
