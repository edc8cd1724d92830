"""THE state table of an event's handler, as data (DEN0054 6.1, Table 13).

Every event (every PE's instance of it, for a private event) is in one of six states, the value that EVENT_STATUS
returns: bit 0 registered, bit 1 enabled, bit 2 running. Values 2 and 6 cannot be: enabled implies registered.

The dispatcher holds no rule of its own about states: it looks `STEP[action][state]` up. `docs/reference/sdei-states.md`
is generated from the same rows (`python -m qemu_sdei.sdei.document`).

Sources in the rows: DEN0054 section, then who else says so (TFA: Trusted Firmware-A, TFTF: its test suite, ACSnn: Arm's
compliance suite, test nn; KVM7: the KVM series v7, REV: what its reviewers quoted from the specification).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from qemu_sdei.sdei.constants import DENIED, INVALID_PARAMETERS, SUCCESS
from qemu_sdei.sdei.constants import PENDING as PENDING_CODE

UNREGISTERED: Final = 0
REGISTERED: Final = 1
ENABLED: Final = 3
UNREGISTER_PENDING: Final = 4
RUNNING_DISABLED: Final = 5
RUNNING: Final = 7

BIT_REGISTERED: Final = 1
BIT_ENABLED: Final = 2
BIT_RUNNING: Final = 4

STATES: Final = (UNREGISTERED, REGISTERED, ENABLED, RUNNING, RUNNING_DISABLED, UNREGISTER_PENDING)
STATE_NAMES: Final = {
    UNREGISTERED: "unregistered",
    REGISTERED: "registered",
    ENABLED: "enabled",
    RUNNING: "running",
    RUNNING_DISABLED: "running, disabled",
    UNREGISTER_PENDING: "running, unregister pending",
}


class Action(IntEnum):
    """What can happen to an event."""

    REGISTER = 0
    ENABLE = 1
    DISABLE = 2
    UNREGISTER = 3
    """EVENT_UNREGISTER; the two resets do the same to each event that is not unregistered."""
    ROUTING_SET = 4
    RELEASE = 5
    CONTEXT = 6
    COMPLETE = 7
    """EVENT_COMPLETE, EVENT_COMPLETE_AND_RESUME of the innermost handler; its PE going off completes it as well."""
    TRIGGER = 8
    """EVENT_SIGNAL, an injection by the host, or a bound interrupt."""
    DISPATCH = 9
    """The handler starts. Whether it may is decided by PE and priority as well; the state's part of it is here."""
    PE_RESET = 10
    """CPU_ON, CPU_OFF, system reset: nothing of a private event survives."""


class Latch(IntEnum):
    """What happens to the pending bit."""

    KEEP = 0
    CLEAR = 1
    SET = 2


class Row(NamedTuple):
    """One rule: what `action` does to an event in any of `states`."""

    action: Action
    states: tuple[int, ...]
    result: int
    """What the call returns; for DISPATCH, SUCCESS says that the handler starts."""
    next: int | None
    """The state afterwards; None: unchanged."""
    latch: Latch
    source: str


_A = Action
_L = Latch

ROWS: Final = (
    Row(_A.REGISTER, (0,), SUCCESS, 1, _L.CLEAR, "DEN0054 5.1.2, ACS3; triggers from before it are dropped (TFA)"),
    Row(_A.REGISTER, (1, 3, 7, 5), DENIED, None, _L.KEEP, "DEN0054 5.1.2, ACS3, ACS21, TFTF"),
    Row(_A.REGISTER, (4,), DENIED, None, _L.KEEP, "DEN0054 5.1.2, 6.7; TFTF, ACS22"),
    Row(_A.ENABLE, (0, 4), DENIED, None, _L.KEEP, "DEN0054 5.1.3, ACS5, TFTF"),
    Row(_A.ENABLE, (1, 3), SUCCESS, 3, _L.KEEP, "DEN0054 5.1.3; idempotent (TFA, REV)"),
    Row(_A.ENABLE, (5, 7), SUCCESS, 7, _L.KEEP, "DEN0054 5.1.3, TFTF"),
    Row(_A.DISABLE, (0, 4), DENIED, None, _L.KEEP, "DEN0054 5.1.4, ACS6, TFTF"),
    Row(_A.DISABLE, (1, 3), SUCCESS, 1, _L.KEEP, "DEN0054 5.1.4; a trigger stays pending (TFA)"),
    Row(_A.DISABLE, (5, 7), SUCCESS, 5, _L.KEEP, "DEN0054 5.1.4; the handler runs on (TFTF)"),
    Row(_A.UNREGISTER, (0,), DENIED, None, _L.KEEP, "DEN0054 5.1.8, ACS7, TFTF"),
    Row(_A.UNREGISTER, (1, 3), SUCCESS, 0, _L.CLEAR, "DEN0054 5.1.8, 6.7; a pending trigger is cancelled (TFA)"),
    Row(_A.UNREGISTER, (5, 7), PENDING_CODE, 4, _L.CLEAR, "DEN0054 5.1.8, 6.7; TFTF, ACS22, REV"),
    Row(_A.UNREGISTER, (4,), PENDING_CODE, None, _L.KEEP, "DEN0054 5.1.8, 6.7; TFTF"),
    Row(_A.ROUTING_SET, (1,), SUCCESS, None, _L.KEEP, "DEN0054 5.1.11, ACS9, TFTF"),
    Row(_A.ROUTING_SET, (0, 3, 7, 5, 4), DENIED, None, _L.KEEP, "DEN0054 5.1.11: exactly registered; ACS9, TFTF"),
    Row(_A.RELEASE, (0,), SUCCESS, None, _L.CLEAR, "DEN0054 5.1.15, ACS10 (of a bound event only)"),
    Row(_A.RELEASE, (1, 3, 7, 5, 4), DENIED, None, _L.KEEP, "DEN0054 5.1.15, TFTF"),
    Row(_A.CONTEXT, (0, 1, 3), DENIED, None, _L.KEEP, "DEN0054 5.1.5, ACS27, TFTF"),
    Row(_A.CONTEXT, (7, 5, 4), SUCCESS, None, _L.KEEP, "DEN0054 5.1.5, ACS25"),
    Row(_A.COMPLETE, (0, 1, 3), DENIED, None, _L.KEEP, "DEN0054 5.1.6, 5.1.7; TFTF"),
    Row(_A.COMPLETE, (7,), SUCCESS, 3, _L.KEEP, "DEN0054 5.1.6, 5.1.7; ACS24, ACS49"),
    Row(_A.COMPLETE, (5,), SUCCESS, 1, _L.KEEP, "DEN0054 5.1.6, 5.1.7; TFTF"),
    Row(_A.COMPLETE, (4,), SUCCESS, 0, _L.KEEP, "DEN0054 6.7; TFTF, ACS22"),
    Row(_A.TRIGGER, (0, 4), INVALID_PARAMETERS, None, _L.KEEP, "DEN0054 5.1.16; nothing to deliver to (KVM7, TFA)"),
    Row(_A.TRIGGER, (1, 3, 7, 5), SUCCESS, None, _L.SET, "DEN0054 5.1.16.1; merges (REV), is not lost (ACS41)"),
    Row(_A.DISPATCH, (3,), SUCCESS, 7, _L.CLEAR, "DEN0054 6.1, ACS25"),
    Row(_A.DISPATCH, (0, 1, 7, 5, 4), DENIED, None, _L.KEEP, "DEN0054 6.1, 6.2.1: enabled and not running; ACS43"),
    Row(_A.PE_RESET, (0, 1, 3, 7, 5, 4), SUCCESS, 0, _L.CLEAR, "DEN0054 6.5.2, ACS47, TFA"),
)  # fmt: skip

Step = tuple[int, int, int]
"""(result, next state, Latch value): a cell of the compiled table."""


def _compile(rows: tuple[Row, ...]) -> tuple[tuple[Step, ...], ...]:
    """The rows as tuples indexed by action and state. A cell without a row (states 2 and 6) refuses."""
    table: list[list[Step]] = [[(DENIED, state, int(Latch.KEEP)) for state in range(8)] for _ in Action]
    for row in rows:
        for state in row.states:
            table[row.action][state] = (row.result, state if row.next is None else row.next, int(row.latch))
    return tuple(tuple(cells) for cells in table)


STEP: Final = _compile(ROWS)
COMPLETE_NEXT: Final = tuple(step[1] for step in STEP[Action.COMPLETE])
DISPATCH_NEXT: Final = tuple(step[1] for step in STEP[Action.DISPATCH])
TRIGGER_RESULT: Final = tuple(step[0] for step in STEP[Action.TRIGGER])
ACTION_NAMES: Final = tuple(action.name for action in Action)
