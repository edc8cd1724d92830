"""What became of each trigger is counted: accepted = merged + dropped + delivered + what is pending."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qemu_sdei.errors import NotDeliveredError, ProtocolError
from qemu_sdei.sdei import Dispatcher, MachineDescription
from qemu_sdei.sdei.constants import Function
from tests.sdei.machine import INVALID, PRIVATE, SHARED, Machine

PPI = 27


def counts(dispatcher: Dispatcher) -> dict[tuple[int, int], tuple[int, ...]]:
    """(event, PE) -> accepted, merged, dropped, delivered."""
    return {(event, pe): tuple(rest) for event, pe, *rest in dispatcher.counts()}


def test_injections() -> None:
    machine = Machine(2)
    for pe in (0, 1):
        machine.enable(pe, PRIVATE)
    machine.trigger(PRIVATE, 1)
    assert counts(machine.dispatcher) == {(PRIVATE, 1): (1, 0, 0, 1)}
    for _ in range(3):  # its handler runs: the first waits, the others are one with it
        machine.trigger(PRIVATE, 1)
    assert counts(machine.dispatcher) == {(PRIVATE, 1): (4, 2, 0, 1)}
    machine(1, Function.EVENT_COMPLETE, 0)
    assert counts(machine.dispatcher) == {(PRIVATE, 1): (4, 2, 0, 2)}


def test_what_is_refused_is_not_counted() -> None:
    machine = Machine(2)
    with pytest.raises(NotDeliveredError):
        machine.trigger(PRIVATE, 0)
    assert machine(0, Function.EVENT_SIGNAL, 0, 1) == INVALID
    assert counts(machine.dispatcher) == {}


def test_signals() -> None:
    machine = Machine(2)
    machine.enable(1, 0)
    machine(1, Function.PE_MASK)
    for _ in range(5):
        assert machine(0, Function.EVENT_SIGNAL, 0, 1) == 0
    assert counts(machine.dispatcher) == {(0, 1): (5, 4, 0, 0)}
    machine(1, Function.PE_UNMASK)
    assert counts(machine.dispatcher) == {(0, 1): (5, 4, 0, 1)}


def test_bound_interrupts() -> None:
    machine = Machine(2)
    event = machine(0, Function.INTERRUPT_BIND, PPI)
    assert event is not None
    assert machine.register(0, event) == 0
    for _ in range(2):
        assert machine.dispatcher.interrupt(PPI, 0)
    assert counts(machine.dispatcher) == {(event, 0): (2, 1, 0, 0)}


@pytest.mark.parametrize("how", ["unregister", "private reset", "off", "reset"])
def test_what_was_pending_when_the_event_went(how: str) -> None:
    machine = Machine(2)
    assert machine.register(1, PRIVATE) == 0
    machine.trigger(PRIVATE, 1)
    if how == "unregister":
        assert machine(1, Function.EVENT_UNREGISTER, PRIVATE) == 0
    elif how == "private reset":
        assert machine(1, Function.PRIVATE_RESET) == 0
    elif how == "off":
        machine.dispatcher.power_off(1)
    else:
        machine.dispatcher.reset()
    assert counts(machine.dispatcher) == {(PRIVATE, 1): (1, 0, 1, 0)}


def test_a_shared_event_is_counted_once() -> None:
    machine = Machine(3)
    machine.enable(0, SHARED)
    machine.trigger(SHARED)
    machine.trigger(SHARED, 2)
    assert counts(machine.dispatcher) == {(SHARED, -1): (2, 0, 0, 1)}


def moved(machine: Machine, document: object) -> Dispatcher:
    """Another dispatcher with the machine's state, and `document` for its counts."""
    dispatcher = Dispatcher(MachineDescription.default(), range(len(machine.regs)))
    dispatcher.restore(json.loads(json.dumps(machine.dispatcher.snapshot())))
    dispatcher.restore_counts(document)
    return dispatcher


def busy() -> Machine:
    """One accepted, merged, delivered and pending."""
    machine = Machine(2)
    machine.enable(0, PRIVATE)
    for _ in range(3):
        machine.trigger(PRIVATE, 0)
    return machine


def test_they_travel() -> None:
    machine = busy()
    assert counts(moved(machine, machine.dispatcher.counts())) == {(PRIVATE, 0): (3, 1, 0, 1)}


def test_a_document_without_them_begins_with_what_is_pending() -> None:
    assert counts(moved(busy(), [])) == {(PRIVATE, 0): (1, 0, 0, 0)}


def test_pending_bits_that_were_written_from_outside_are_counted() -> None:
    """As a VMM does that writes KVM's registers."""
    machine = busy()
    assert counts(moved(machine, [[PRIVATE, 0, 2, 1, 0, 1]])) == {(PRIVATE, 0): (3, 1, 0, 1)}
    machine(0, Function.EVENT_COMPLETE, 0)
    assert counts(moved(machine, [[PRIVATE, 0, 3, 1, 0, 1]])) == {(PRIVATE, 0): (3, 1, 1, 1)}


@pytest.mark.parametrize(
    "damage",
    [
        None,
        {},
        [[]],
        [[PRIVATE, 0, 1, 0, 0]],
        [[PRIVATE, 0, True, 0, 0, 1]],
        [[PRIVATE, 0, 1.0, 0, 0, 1]],
        [[PRIVATE, 2, 1, 0, 0, 1]],
        [[SHARED, 0, 1, 0, 0, 1]],
        [[0x999, 0, 1, 0, 0, 1]],
        [[PRIVATE, 0, 1, 0, 0, 1]] * 2,
        [[PRIVATE, 0, 3, 0, 0, 1]],
        [[PRIVATE, 0, 1, 1, 0, 1]],
        [[PRIVATE, 0, 1, -1, 1, 1]],
        [[PRIVATE, 0, 1 << 63, 1 << 62, 0, 1 << 62]],
        [[PRIVATE, 0, 10**5000, 0, 0, 10**5000]],
    ],
)
def test_damage_is_refused(damage: Any) -> None:
    machine = busy()
    before = machine.dispatcher.counts()
    with pytest.raises(ProtocolError, match="SDEI counts"):
        machine.dispatcher.restore_counts(damage)
    assert machine.dispatcher.counts() == before
