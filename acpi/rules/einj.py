"""Rules for EINJ (ACPI 6.5 18.6)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.acpi.rules import action
from qemu_sdei.acpi.rules.registry import rules_for
from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.tables.einj import Einj, EinjAction, EinjInstruction

_NEEDED: Final = (
    EinjAction.BEGIN_INJECTION_OPERATION,
    EinjAction.GET_TRIGGER_ERROR_ACTION_TABLE,
    EinjAction.GET_ERROR_TYPE,
    EinjAction.END_OPERATION,
    EinjAction.EXECUTE_OPERATION,
    EinjAction.CHECK_BUSY_STATUS,
    EinjAction.GET_COMMAND_STATUS,
)


@rules_for(Einj)
def check(report: Report, table: Einj) -> None:
    """Check the whole table.

    Errors: entries that are not there; an instruction that does not exist, or has no register.
    Warnings: an action that an injection needs and that is not there; actions that ACPI 6.5 does not have; a header of
    another size; reserved bits.
    """
    if table.header_size not in (12, 48):
        report.warning("header_size", f"it is {table.header_size}: 12, and 48 in tables of old, is what systems take")
    report.reserved("flags", table.flags)
    report.reserved("reserved", table.reserved)
    action.check(report, table.entry_count, table.entries, set(EinjAction), set(EinjInstruction))
    there = {each.action for each in table.entries}
    if missing := [each.name for each in _NEEDED if each not in there]:
        report.warning("entry_count", f"no entry for {', '.join(missing)}: an injection needs it")
