"""Which clause decides how a call is answered."""

from __future__ import annotations

from typing import Final

from qemu_sdei.sdei.constants import Function
from qemu_sdei.sdei.transitions import ROWS, Action
from qemu_sdei.services import psci

_PREFIX: Final = "SDEI_"
_SECTIONS: Final = {f"{_PREFIX}{function.name}": f"DEN0054 5.1.{n}" for n, function in enumerate(Function, 1)}
"""The specification describes the calls in the order of their ids."""
ACTIONS: Final = {
    "SDEI_EVENT_REGISTER": Action.REGISTER,
    "SDEI_EVENT_ENABLE": Action.ENABLE,
    "SDEI_EVENT_DISABLE": Action.DISABLE,
    "SDEI_EVENT_UNREGISTER": Action.UNREGISTER,
    "SDEI_EVENT_ROUTING_SET": Action.ROUTING_SET,
    "SDEI_INTERRUPT_RELEASE": Action.RELEASE,
    "SDEI_EVENT_CONTEXT": Action.CONTEXT,
    "SDEI_EVENT_COMPLETE": Action.COMPLETE,
    "SDEI_EVENT_COMPLETE_AND_RESUME": Action.COMPLETE,
    "SDEI_EVENT_SIGNAL": Action.TRIGGER,
}
"""What each call does to the event that it names, or to that of the innermost handler (CONTEXT, COMPLETE)."""
_PSCI: Final = frozenset(function.name for function in psci.Function) | {"SYSTEM_OFF2", "MIGRATE", "NODE_HW_STATE"}


def section_of(function: str) -> str:
    """Where a function (by name) is specified; "" if that is not known."""
    if function in _PSCI or function.startswith("PSCI_"):
        return "DEN0022 5.1"
    return _SECTIONS.get(function, "DEN0028 7" if function.startswith("SMCCC_") else "")


def clause_of_answer(function: str, result: int, state: int | None) -> str:
    """Why a call (by name) has this result: the row of the state table, if one decides it, else the section.

    `state`: of the event that the call names, before it (`sdei.transitions`); None: not known.
    """
    action = ACTIONS.get(function)
    rows = [row for row in ROWS if row.action == action and row.result == result]
    if state is not None:
        rows = [row for row in rows if state in row.states]
    if len(rows) == 1:
        return rows[0].source
    return section_of(function)
