"""What the firmware has refused lately, and by which rule."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture, Record
from qemu_sdei.explain.words import CLAUSES
from qemu_sdei.sdei.constants import DENIED
from qemu_sdei.sdei.transitions import ROWS, STATE_NAMES, Action
from qemu_sdei.trace.arguments import is_refusal
from qemu_sdei.trace.clauses import ACTIONS

MOST: Final = 8
_INNERMOST: Final = (Action.CONTEXT, Action.COMPLETE)
"""Calls of these are about the innermost handler, and name no event."""
_RESETS: Final = ("SDEI_PRIVATE_RESET", "SDEI_SHARED_RESET")
_STATES: Final = {name: state for state, name in STATE_NAMES.items()}
_QUESTIONS: Final = ("SDEI_VERSION", "SDEI_FEATURES", "PSCI_FEATURES", "PSCI_VERSION", "MIGRATE_INFO_TYPE")
"""A refusal is an answer to these as good as any."""
_CLAUSE: Final = re.compile(r"DEN0054 \d[\d.]*(?:, \d[\d.]*)*")
_PSCI: Final = {
    "ALREADY_ON": "that CPU is on: it has not called CPU_OFF",
    "ON_PENDING": "CPU_ON was called for it before, and it has not come yet",
    "INVALID_ADDRESS": "no CPU can run there with its MMU off: outside of RAM, or not aligned",
    "INVALID_PARAMETERS": "no CPU has this affinity, or a reserved bit is set",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that was refused, and those like it.

    Attributes:
        call: the newest one.
        count: how many.
        why: by which rule, with the clause.
    """

    call: Record
    count: int
    why: str


def refusals(picture: Picture, history: History) -> list[Refusal]:
    """The newest ones first, each kind once."""
    found: dict[tuple[object, ...], list[Record]] = {}
    for call in history.calls():
        name = str(call.get("function"))
        result = call.get("result")
        if not is_refusal(call) or name not in CLAUSES or name in _QUESTIONS:
            continue
        arguments = call.get("args", {})
        key = (name, call.get("vcpu"), result, arguments.get("event"), arguments.get("target"))
        found.setdefault(key, []).append(call)
    return [Refusal(calls[0], len(calls), why(picture, history, calls[0])) for calls in list(found.values())[:MOST]]


def why(picture: Picture, history: History, call: Record) -> str:
    """The rule by which a call was refused: a row of the state table, with its source, or the call's own clause."""
    name, vcpu = str(call.get("function")), call.get("vcpu")
    action = ACTIONS.get(name) if call.get("result") == DENIED else None
    if action in _INNERMOST:
        if vcpu is not None and not history.running_at(vcpu, call["n"]):
            return f"no handler ran on vCPU {vcpu} ({_source(action, STATE_NAMES[0])})"
    elif action is not None:
        event = int(call.get("args", {}).get("event", -1))
        state = history.state_at(event, vcpu, call["n"])
        if source := _source(action, state):
            return f"{picture.called(event)} was {state} ({source})"
    clause = CLAUSES.get(name, "")
    if call.get("result") == DENIED and name in _RESETS:
        return f"the handler of an event that it is to reset was running ({clause})"
    reason = _PSCI.get(str(call.get("result_name"))) if clause.startswith("DEN0022") else None
    return f"{reason} ({clause})" if reason else clause


def _source(action: Action, state: str) -> str:
    """The clause of a row of the state table; rows name others as well who say the same."""
    number = _STATES.get(state)
    row = next((row for row in ROWS if row.action is action and number in row.states and row.result != 0), None)
    clause = None if row is None else _CLAUSE.match(row.source)
    return "" if clause is None else clause[0]
