"""Conformance 56-62: unregister, resets, and what can be called when."""

from __future__ import annotations

import pytest

from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.sdei.constants import SHARED_SLOTS, Function
from tests.sdei.machine import (
    DENIED,
    INVALID,
    PENDING,
    PRIVATE,
    PRIVATE_2,
    PRIVATE_CRITICAL,
    SHARED,
    SHARED_2,
    SHARED_CRITICAL,
    Machine,
)

ALL_STATES = (0, 1, 3, 7, 5, 4)


@pytest.mark.parametrize("event", [0, PRIVATE, SHARED, SHARED_CRITICAL])
def test_unregister(event: int) -> None:
    """56."""
    machine = Machine()
    assert machine(0, Function.EVENT_UNREGISTER, event) == DENIED
    for state in (1, 3):
        machine.to_state(0, event, state)
        assert machine(0, Function.EVENT_UNREGISTER, event) == 0
        assert machine.status(0, event) == 0
        with pytest.raises(NotDeliveredError, match="not registered"):
            machine.trigger(event, 0)
    assert machine.deliveries == []


@pytest.mark.parametrize(
    ("event", "how"),
    [
        (0, Function.EVENT_UNREGISTER),
        (PRIVATE, Function.EVENT_UNREGISTER),
        (SHARED, Function.EVENT_UNREGISTER),
        (0, Function.PRIVATE_RESET),
        (PRIVATE, Function.PRIVATE_RESET),
        (SHARED, Function.SHARED_RESET),
    ],
)
def test_unregister_cancels_what_is_pending(event: int, how: Function) -> None:
    """A trigger of the old registration never reaches the new one."""
    machine = Machine()
    machine.enable(0, event)
    for pe in (0, 1):
        machine(pe, Function.PE_MASK)
    machine.trigger(event, 0)
    assert machine(0, how, event) == 0
    machine.enable(0, event)
    for pe in (0, 1):
        machine(pe, Function.PE_UNMASK)
    assert machine.deliveries == []


def test_unregister_in_the_handler_cancels_a_second_trigger() -> None:
    """It was merged for the registration that ends."""
    machine = Machine()
    machine.run(0, 0)
    assert machine.signal(0, 0) == 0
    assert machine(0, Function.EVENT_UNREGISTER, 0) == PENDING
    assert machine.signal(0, 0) == INVALID
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    machine.enable(0, 0)
    assert machine.deliveries == [(0, 0)]


def test_private_reset() -> None:
    """58, 61."""
    machine = Machine()
    for event in (0, PRIVATE, PRIVATE_CRITICAL, SHARED):
        machine.enable(0, event)
    machine.enable(1, PRIVATE)
    assert machine(0, Function.PRIVATE_RESET) == 0
    assert [machine.status(0, event) for event in (0, PRIVATE, PRIVATE_CRITICAL, SHARED)] == [0, 0, 0, 3]
    assert machine.status(1, PRIVATE) == 3
    assert machine(0, Function.PRIVATE_RESET) == 0


def test_shared_reset() -> None:
    """59, 61: any PE may call it."""
    machine = Machine()
    for event in (PRIVATE, SHARED, SHARED_CRITICAL):
        machine.enable(0, event)
    assert machine(1, Function.SHARED_RESET) == 0
    assert [machine.status(0, event) for event in (PRIVATE, SHARED, SHARED_CRITICAL)] == [3, 0, 0]
    assert machine(0, Function.SHARED_RESET) == 0


def test_private_reset_in_a_private_handler() -> None:
    """60: DENIED, and yet all are unregistered, the running one as soon as it completes."""
    machine = Machine()
    machine.enable(0, PRIVATE_2)
    machine.run(0, PRIVATE)
    assert machine(0, Function.PRIVATE_RESET) == DENIED
    assert machine.status(0, PRIVATE) == 4
    assert machine.status(0, PRIVATE_2) == 0
    assert machine(0, Function.PRIVATE_RESET) == DENIED
    assert machine(0, Function.SHARED_RESET) == 0
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    assert machine.status(0, PRIVATE) == 0
    assert machine(0, Function.PRIVATE_RESET) == 0


def test_shared_reset_in_a_shared_handler() -> None:
    """60, from the running PE and from another."""
    machine = Machine()
    machine.enable(0, SHARED_2)
    machine.run(0, SHARED)
    assert machine(1, Function.SHARED_RESET) == DENIED
    assert machine.status(1, SHARED) == 4
    assert machine.status(1, SHARED_2) == 0
    assert machine(0, Function.PRIVATE_RESET) == 0
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    assert machine(0, Function.SHARED_RESET) == 0


def test_shared_reset_takes_back_what_another_pe_was_to_run() -> None:
    """The kicked PE finds nothing."""
    machine = Machine()
    machine.enable(0, SHARED)
    machine(0, Function.PE_MASK)
    machine.hold_kicks = True
    machine.trigger(SHARED)
    assert machine.dispatcher.kicks == [1]
    assert machine(0, Function.SHARED_RESET) == 0
    assert machine.frame(1) is None
    assert machine.dispatcher.attention[1] == 0


@pytest.mark.parametrize("state", ALL_STATES)
@pytest.mark.parametrize("event", [0, SHARED])
def test_calls_that_work_in_every_state(state: int, event: int) -> None:
    """62."""
    machine = Machine()
    machine.to_state(0, event, state)
    assert machine(0, Function.VERSION) == 0x0001_0001_004B_564D
    assert machine(0, Function.EVENT_STATUS, event) == state
    assert machine(0, Function.EVENT_GET_INFO, event, 2) == 0
    assert machine(0, Function.FEATURES, 0) == 0x8_0004
    assert machine(0, Function.INTERRUPT_BIND, 33) == SHARED_SLOTS
    assert machine(0, Function.PE_MASK) == 1
    assert machine(0, Function.PE_UNMASK) == 0
    machine.enable(1, 0)
    assert machine.signal(0, 1) == 0
    assert machine.deliveries[-1] == (1, 0)


@pytest.mark.parametrize("event", [0, PRIVATE, SHARED])
@pytest.mark.parametrize("state", ALL_STATES)
def test_release_what_is_not_bound(event: int, state: int) -> None:
    """66: events of the machine are not releasable, in no state."""
    machine = Machine()
    machine.to_state(0, event, state)
    assert machine(0, Function.INTERRUPT_RELEASE, event) == INVALID
    assert machine.status(0, event) == state
