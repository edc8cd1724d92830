"""What was refused in a trace, why, and by which clause.

A call's reason comes from the state table's row (`sdei/transitions.py`) for the state that its event was in then, as
far as the trace has said; what the firmware says itself (`why`) goes before.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Final

from qemu_sdei.explain.words import CLAUSES
from qemu_sdei.sdei.constants import DENIED, FIRST_NUMBER
from qemu_sdei.sdei.transitions import ROWS, STATE_NAMES, Action
from qemu_sdei.smccc.ids import Owner, number_of, owner_of
from qemu_sdei.trace.clauses import ACTIONS
from qemu_sdei.views.moments import Moment, argument, integer, vcpu_of_affinity, word

_HANDLERS: Final = (Action.CONTEXT, Action.COMPLETE)
_ACTIONS: Final[dict[str, Action]] = {name: action for name, action in ACTIONS.items() if action not in _HANDLERS}
_OF_THE_HANDLER: Final[dict[str, Action]] = {name: action for name, action in ACTIONS.items() if action in _HANDLERS}
"""Calls about the handler that runs on their vCPU."""
_MEANINGS: Final = {
    "NOT_SUPPORTED": "the firmware does not offer it to this caller",
    "INVALID_PARAMETERS": "an argument cannot be: an event that is not there or cannot be signalled, a flag, an "
    "address, an affinity",
    "OUT_OF_RESOURCE": "there is no slot left",
    "DENIED": "not in this state",
}
_PSCI_MEANINGS: Final = {
    "NOT_SUPPORTED": "the firmware does not offer it",
    "INVALID_PARAMETERS": "no CPU has this affinity, a reserved bit is set, or the state cannot be",
    "INVALID_ADDRESS": "the entry point is not in the guest's RAM, or not on 4 bytes",
    "DENIED": "not in this state, such as inside a handler",
    "ALREADY_ON": "that CPU is on",
    "ON_PENDING": "that CPU is being started",
    "INTERNAL_FAILURE": "the firmware failed",
    "NOT_PRESENT": "there is no such CPU",
    "DISABLED": "that CPU is disabled",
}
_NO_REFUSALS: Final = frozenset(("PENDING", "SUCCESS", "NOT_REQUIRED"))
_QUESTIONS: Final = frozenset(("PSCI_FEATURES", "SMCCC_ARCH_FEATURES"))
"""Whether there is a function: that there is none is an answer, and no refusal."""
_MAX_GROUPS: Final = 1000
_MAX_STATES: Final = 1 << 16


@dataclass(slots=True)
class Refusal:
    """The same thing refused for the same reason, so many times."""

    what: str
    event: int | None
    answer: str
    why: str
    clause: str
    vcpus: set[int] = field(default_factory=set)
    count: int = 0
    first: int = 0
    """Serial number of the first such record."""
    last: int = 0
    last_at: int = 0
    """Nanoseconds since the trace's first record."""


def is_refusal(moment: Moment) -> bool:
    """Whether a record says that something was refused, or was not as it must be."""
    record, kind = moment.record, moment.type
    if kind in ("call", "frame"):
        name = word(record, "result_name")  # what has none is a value, such as a register's
        if name == "NOT_SUPPORTED" and word(record, "function") in _QUESTIONS:
            return False
        return name != "" and (integer(record, "result") or 0) < 0 and name not in _NO_REFUSALS
    return kind in ("unknown", "reject") or (kind == "trigger" and word(record, "outcome") == "refused")


class Refusals:
    """Follows the states of events, and collects what is refused."""

    def __init__(self, shared: Container[int] = frozenset()) -> None:
        self._shared = shared
        self.states: dict[tuple[int, int | None], str] = {}
        """The last state that the trace has said of each event's instance; vCPU None for a shared event."""
        self._running: dict[int | None, list[int]] = {}
        self._groups: dict[tuple[str, int | None, str, str], Refusal] = {}
        self.total = 0
        self.left_out = 0

    @property
    def groups(self) -> list[Refusal]:
        """The most frequent first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.first))

    def add(self, moment: Moment) -> None:
        """Take the next record."""
        kind = moment.type
        if kind == "transition":
            self._transition(moment)
        elif kind == "boot":
            self.states.clear()
            self._running.clear()
        elif not is_refusal(moment):
            return
        elif kind in ("call", "frame"):
            self._call(moment)
        elif kind == "trigger":
            by = word(moment.record, "by") or "host"
            why = word(moment.record, "why") or "it is not registered there"
            self._refuse(moment, f"trigger by {by}", "refused", why, "DEN0054 5.1.16")
        elif kind == "unknown":
            number = integer(moment.record, "id")
            what = f"call {number:#x}" if number is not None and abs(number) < 1 << 64 else "a call"
            self._refuse(moment, what, "NOT_SUPPORTED", "no service has this function id", "DEN0028")
        else:
            self._refuse(moment, "rejected", "", word(moment.record, "why"), "")

    def _refuse(self, moment: Moment, what: str, answer: str, why: str, clause: str) -> None:
        self.total += 1
        key = (what, moment.event, answer, why)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= _MAX_GROUPS:
                self.left_out += 1
                return
            group = self._groups[key] = Refusal(what, moment.event, answer, why, clause, first=moment.n)
        group.count += 1
        if moment.vcpu is not None:
            group.vcpus.add(moment.vcpu)
        group.last, group.last_at = moment.n, moment.at

    def _call(self, moment: Moment) -> None:
        result, name = integer(moment.record, "result") or 0, word(moment.record, "result_name")
        function = word(moment.record, "function")
        why, clause = self._reason(moment, function, result, name)
        self._refuse(moment, function or "a call", name, why, clause)

    def _reason(self, moment: Moment, function: str, result: int, name: str) -> tuple[str, str]:
        """Why, and by which clause."""
        clause = CLAUSES.get(function, "")
        if function.startswith("SDEI_"):
            return self._by_state(moment, function, result) or (_MEANINGS.get(name, ""), clause or "DEN0054 5.1")
        if clause.startswith("DEN0022") or _is_psci(integer(moment.record, "id")):
            return _PSCI_MEANINGS.get(name, ""), clause or "DEN0022 5.2.2"
        return _MEANINGS.get(name, ""), clause or "DEN0028"

    def _by_state(self, moment: Moment, function: str, result: int) -> tuple[str, str] | None:
        """The state of the call's event, and the row of the state table that refuses the call there; None: its
        arguments were refused, whatever the state.
        """
        action, event, vcpu = _ACTIONS.get(function), moment.event, moment.vcpu
        if function in _OF_THE_HANDLER:
            action, running = _OF_THE_HANDLER[function], self._running.get(vcpu)
            event = running[-1] if running else None
        elif action == Action.TRIGGER:
            vcpu = vcpu_of_affinity(argument(moment.record, "target") or 0)
        rows = [row for row in ROWS if row.action == action and row.result == result]
        if not rows:
            return None
        if event is None:
            return ("no handler runs on this vCPU", rows[0].source) if result == DENIED else None
        state = self._state(event, vcpu)
        for row in rows:
            if any(STATE_NAMES[number] == state for number in row.states):
                return f"the event is {state}", row.source
        if result != DENIED or state is not None:
            return None
        states = " or ".join(f"“{STATE_NAMES[number]}”" for row in rows for number in row.states)
        return f"the event's state is {states}", rows[0].source

    def _state(self, event: int, vcpu: int | None) -> str | None:
        return self.states.get((event, None if event in self._shared else vcpu))

    def _transition(self, moment: Moment) -> None:
        if moment.event is None:
            return
        key = (moment.event, None if moment.event in self._shared else moment.vcpu)
        now, cause = word(moment.record, "to"), word(moment.record, "cause")
        if key in self.states or len(self.states) < _MAX_STATES:
            self.states[key] = now
        running = self._running.setdefault(moment.vcpu, [])
        if cause == "DISPATCH":
            running.append(moment.event)
            del running[:-8]
        elif not now.startswith("running") and moment.event in running:
            running.remove(moment.event)


def _is_psci(number: int | None) -> bool:
    """Whether it is a function id of PSCI: the first 32 numbers of the standard services (DEN0022 5.1)."""
    return number is not None and owner_of(number) == Owner.STANDARD and number_of(number) < FIRST_NUMBER


def state_grid(states: Mapping[tuple[int, int | None], str]) -> dict[int, dict[int | None, str]]:
    """Last states by event and vCPU, of events that are registered or were."""
    grid: dict[int, dict[int | None, str]] = {}
    for (event, vcpu), state in states.items():
        grid.setdefault(event, {})[vcpu] = state
    return dict(sorted(grid.items()))
