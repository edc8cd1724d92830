"""The test matrix of the state table: every cell of `transitions.py` is driven on the real dispatcher.

Each (kind of event, state, pending or not) is reached by calls; then each way in which an action comes about is tried:
what the call answers, the state afterwards and the pending bit are those of the table. All PEs are masked, so that
nothing is delivered but where delivery is what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import pytest

from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.sdei.constants import DENIED, PRIVATE_SLOTS, SHARED_SLOTS, SUCCESS, Function
from qemu_sdei.sdei.constants import PENDING as PENDING_CODE
from qemu_sdei.sdei.transitions import BIT_REGISTERED, BIT_RUNNING, STATE_NAMES, STATES, STEP, Action, Latch
from tests.sdei.machine import ENTRY, PRIVATE, PRIVATE_CRITICAL, SHARED, Machine

PPI, SPI = 27, 34
NOTHING: Final = "nothing was dispatched"


class Kind(NamedTuple):
    """A kind of event."""

    name: str
    event: int
    shared: bool = False
    intid: int | None = None


KINDS: Final = (
    Kind("event 0", 0),
    Kind("private", PRIVATE),
    Kind("critical", PRIVATE_CRITICAL),
    Kind("shared", SHARED, shared=True),
    Kind("bound PPI", PRIVATE_SLOTS, intid=PPI),
    Kind("bound SPI", SHARED_SLOTS, shared=True, intid=SPI),
)

Drive = Callable[[Machine, Kind], object]
"""Makes the action happen; returns what came of it: a return code (None: the call did not return), or a word."""


class Way(NamedTuple):
    """One way in which an action comes about."""

    action: Action
    name: str
    drive: Drive
    applies: Callable[[Kind, int], bool] = lambda kind, state: True
    expected: Callable[[int, int, bool], object] = lambda result, state, pending: result
    """What `drive` returns, from the cell's result, the state before, and whether the event was pending."""


def by(pe: int, function: Function, *more: int) -> Drive:
    return lambda machine, kind: machine(pe, function, kind.event, *more)


def complete(function: Function) -> Drive:
    return lambda machine, kind: machine(0, function, 0x4000)


def reset(function: Function) -> Drive:
    return lambda machine, kind: machine(0, function)


def inject(machine: Machine, kind: Kind) -> object:
    try:
        machine.trigger(kind.event, 0)
    except NotDeliveredError:
        return -2
    return SUCCESS


def interrupt(machine: Machine, kind: Kind) -> object:
    assert kind.intid is not None
    machine.dispatcher.interrupt(kind.intid, 0)
    machine.frame(0)
    return None


def unmask(machine: Machine, kind: Kind) -> object:
    before = len(machine.deliveries)
    machine(0, Function.PE_UNMASK)
    return machine.deliveries[-1] if len(machine.deliveries) > before else NOTHING


def power(machine: Machine, kind: Kind, *, on: bool) -> object:
    (machine.dispatcher.power_on if on else machine.dispatcher.power_off)(0)
    return None


def of_shared(kind: Kind, state: int) -> bool:
    return kind.shared


def of_private(kind: Kind, state: int) -> bool:
    return not kind.shared


def of_bound(kind: Kind, state: int) -> bool:
    return kind.intid is not None


def reset_result(result: int, state: int, pending: bool) -> object:
    """A reset does not mind what is not registered, and says DENIED for what runs."""
    return DENIED if result == PENDING_CODE else SUCCESS


def no_return(result: int, state: int, pending: bool) -> object:
    return None if result == SUCCESS else result


def silent(result: int, state: int, pending: bool) -> object:
    return None


A = Action
WAYS: Final = (
    Way(A.REGISTER, "EVENT_REGISTER", by(0, Function.EVENT_REGISTER, ENTRY, 0, 0, 0)),
    Way(A.REGISTER, "by another PE", by(1, Function.EVENT_REGISTER, ENTRY, 0, 0, 0), of_shared),
    Way(A.ENABLE, "EVENT_ENABLE", by(0, Function.EVENT_ENABLE)),
    Way(A.ENABLE, "by another PE", by(1, Function.EVENT_ENABLE), of_shared),
    Way(A.DISABLE, "EVENT_DISABLE", by(0, Function.EVENT_DISABLE)),
    Way(A.DISABLE, "by another PE", by(1, Function.EVENT_DISABLE), of_shared),
    Way(A.UNREGISTER, "EVENT_UNREGISTER", by(0, Function.EVENT_UNREGISTER)),
    Way(A.UNREGISTER, "by another PE", by(1, Function.EVENT_UNREGISTER), of_shared),
    Way(A.UNREGISTER, "PRIVATE_RESET", reset(Function.PRIVATE_RESET), of_private, reset_result),
    Way(A.UNREGISTER, "SHARED_RESET", reset(Function.SHARED_RESET), of_shared, reset_result),
    Way(A.ROUTING_SET, "to RM_ANY", by(0, Function.EVENT_ROUTING_SET, 0, 0), of_shared),
    Way(A.ROUTING_SET, "to PE 1, by PE 1", by(1, Function.EVENT_ROUTING_SET, 1, 1), of_shared),
    Way(A.RELEASE, "INTERRUPT_RELEASE", by(0, Function.INTERRUPT_RELEASE), of_bound),
    Way(A.RELEASE, "by another PE", by(1, Function.INTERRUPT_RELEASE), of_bound),
    Way(A.CONTEXT, "EVENT_CONTEXT", lambda machine, kind: min(0, machine(0, Function.EVENT_CONTEXT, 17) or 0)),
    Way(A.COMPLETE, "EVENT_COMPLETE", complete(Function.EVENT_COMPLETE), expected=no_return),
    Way(A.COMPLETE, "AND_RESUME", complete(Function.EVENT_COMPLETE_AND_RESUME), expected=no_return),
    Way(
        A.COMPLETE,
        "its PE goes off",
        lambda machine, kind: power(machine, kind, on=False),
        lambda kind, state: kind.shared and bool(state & BIT_RUNNING),
        silent,
    ),
    Way(A.TRIGGER, "injected", inject),
    Way(A.TRIGGER, "EVENT_SIGNAL", lambda machine, kind: machine.signal(1, 0), lambda kind, state: kind.event == 0),
    Way(A.TRIGGER, "interrupt", interrupt, of_bound, silent),
    Way(
        A.DISPATCH,
        "PE_UNMASK",
        unmask,
        expected=lambda result, state, pending: "starts" if pending and result == SUCCESS else NOTHING,
    ),
    Way(A.PE_RESET, "CPU_OFF", lambda machine, kind: power(machine, kind, on=False), of_private, silent),
    Way(A.PE_RESET, "CPU_ON", lambda machine, kind: power(machine, kind, on=True), of_private, silent),
)


def reach(kind: Kind, state: int, pending: bool) -> Machine:
    """A machine of two PEs whose PE 0 has the event in `state`; then all PEs are masked."""
    machine = Machine(2)
    if kind.intid is not None:
        assert machine(0, Function.INTERRUPT_BIND, kind.intid) == kind.event
    machine.to_state(0, kind.event, state)
    for pe in (0, 1):
        machine(pe, Function.PE_MASK)
    if pending:
        machine.trigger(kind.event, 0)
    assert where(machine, kind) == (state, pending)
    return machine


def where(machine: Machine, kind: Kind) -> tuple[int | None, bool]:
    """State and pending bit of PE 0's instance."""
    entries = {entry["event"]: entry["instances"] for entry in machine.dispatcher.status()["events"]}
    instances = entries.get(kind.event)  # none: a slot that nothing is bound to
    return machine.status(0, kind.event), bool(instances and instances[0]["pending"])


def cells() -> Iterator[tuple[Way, Kind, int, bool]]:
    for way in WAYS:
        for kind in KINDS:
            for state in STATES:
                if way.applies(kind, state):
                    for pending in (False, True) if state & BIT_REGISTERED else (False,):
                        yield way, kind, state, pending


def test_every_cell_of_the_table_is_driven() -> None:
    assert {(way.action, state) for way, _, state, _ in cells()} == {(a, s) for a in Action for s in STATES}


PAIRS: Final = sorted({(KINDS.index(kind), WAYS.index(way)) for way, kind, _, _ in cells()})


@pytest.mark.parametrize(
    ("kind", "way"),
    [(KINDS[k], WAYS[w]) for k, w in PAIRS],
    ids=[f"{KINDS[k].name}-{WAYS[w].action.name}-{WAYS[w].name}" for k, w in PAIRS],
)
def test_the_dispatcher_does_what_the_table_says(kind: Kind, way: Way) -> None:
    """In each state, pending or not, that the kind can be in."""
    for state, pending in [(state, pending) for w, k, state, pending in cells() if w is way and k is kind]:
        machine = reach(kind, state, pending)
        result, after, latch = STEP[way.action][state]
        what = f"{way.action.name} ({way.name}) of {kind.name} in state {state} ({STATE_NAMES[state]}), {pending=}"
        expected = way.expected(result, state, pending)
        got = way.drive(machine, kind)
        if expected == "starts":
            assert got == (0, kind.event), what
        else:
            assert got == expected, what
        if way.action == Action.DISPATCH and expected == NOTHING:
            after, latch = state, Latch.KEEP
        kept = {Latch.KEEP: pending, Latch.CLEAR: False, Latch.SET: True}[Latch(latch)]
        assert where(machine, kind) == (after, kept), what
