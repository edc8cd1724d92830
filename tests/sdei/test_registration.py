"""Conformance 12-30: register, enable, disable, status, info, routing."""

from __future__ import annotations

import pytest

from qemu_sdei.sdei.constants import Function
from tests.sdei.machine import (
    ARGUMENT,
    DENIED,
    ENTRY,
    INVALID,
    NO_PE,
    PENDING,
    PRIVATE,
    PRIVATE_CRITICAL,
    SHARED,
    SHARED_CRITICAL,
    UNKNOWN,
    Machine,
)

BOTH = pytest.mark.parametrize("event", [0, PRIVATE, PRIVATE_CRITICAL, SHARED, SHARED_CRITICAL])


@BOTH
def test_register(event: int) -> None:
    """12."""
    machine = Machine()
    assert machine.register(0, event) == 0
    assert machine.status(0, event) == 1


@BOTH
@pytest.mark.parametrize("state", [1, 3, 4, 5, 7])
def test_register_twice_is_denied_and_changes_nothing(event: int, state: int) -> None:
    """13, 14."""
    machine = Machine()
    machine.to_state(0, event, state)
    before = machine.dispatcher.snapshot()
    assert machine(0, Function.EVENT_REGISTER, event, 0x4000, 1, 0, 0) == DENIED
    assert machine.dispatcher.snapshot() == before


def test_first_registration_stays() -> None:
    """13: the handler gets the first argument."""
    machine = Machine()
    assert machine.register(0, PRIVATE) == 0
    assert machine.register(0, PRIVATE, argument=5) == DENIED
    assert machine(0, Function.EVENT_ENABLE, PRIVATE) == 0
    machine.trigger(PRIVATE, 0)
    assert machine.x(0, 1) == ARGUMENT


@pytest.mark.parametrize("event", UNKNOWN)
@pytest.mark.parametrize(
    "function",
    [
        Function.EVENT_ENABLE,
        Function.EVENT_DISABLE,
        Function.EVENT_UNREGISTER,
        Function.EVENT_STATUS,
        Function.EVENT_GET_INFO,
        Function.EVENT_ROUTING_SET,
        Function.INTERRUPT_RELEASE,
    ],
)
def test_unknown_event(event: int, function: Function) -> None:
    """15."""
    assert Machine()(0, function, event, 0, 0) == INVALID


@pytest.mark.parametrize("event", UNKNOWN)
def test_register_unknown_event(event: int) -> None:
    """15."""
    assert Machine().register(0, event) == INVALID


def test_event_numbers_are_32_bit() -> None:
    """The upper half of x1 is not looked at: W1."""
    machine = Machine()
    assert machine.register(0, 0xABCD_0000_0000 | PRIVATE) == 0
    assert machine(0, Function.EVENT_STATUS, 0x1_0000_0000 | PRIVATE) == 1


@pytest.mark.parametrize("entry", [0, 2, 0x1001, 1 << 52, 1 << 63, 0xFFE0_0000_0000_0000])
def test_bad_entry_point(entry: int) -> None:
    """16."""
    machine = Machine()
    assert machine(0, Function.EVENT_REGISTER, PRIVATE, entry, 0, 0, 0) == INVALID
    assert machine.status(0, PRIVATE) == 0


@pytest.mark.parametrize("entry", [0x1000, ENTRY, 0xFFF0_0000_0000_0000, (1 << 52) - 4, 0xFFFF_FFFF_FFFF_FFFC])
def test_good_entry_point(entry: int) -> None:
    """Every canonical address: KPTI's alias is in no page table that firmware could look at."""
    assert Machine()(0, Function.EVENT_REGISTER, PRIVATE, entry, 0, 0, 0) == 0


@pytest.mark.parametrize("flags", [2, 4, 3, 1 << 63, 1 << 32])
def test_reserved_flags(flags: int) -> None:
    """17; relative mode (bit 1) is not offered."""
    machine = Machine()
    assert machine.register(0, SHARED, flags=flags) == INVALID
    assert machine.register(0, PRIVATE, flags=flags) == INVALID


def test_invalid_comes_before_denied() -> None:
    """A bad parameter is named even where the state would refuse."""
    machine = Machine()
    machine.to_state(0, SHARED, 1)
    assert machine(0, Function.EVENT_REGISTER, SHARED, 0, 0, 0, 0) == INVALID
    assert machine.register(0, SHARED, flags=4) == INVALID
    assert machine.register(0, SHARED, flags=1, affinity=NO_PE) == INVALID
    assert machine(0, Function.EVENT_ROUTING_SET, SHARED, 2, 0) == INVALID


def test_shared_event_routed_to_a_pe() -> None:
    """18, 26."""
    machine = Machine()
    for affinity in (NO_PE, 0xFF00, 0x1_0000_0000):
        assert machine.register(0, SHARED, flags=1, affinity=affinity) == INVALID
    assert machine.register(0, SHARED, flags=1, affinity=0x8000_0001) == 0, "bit 31 is RES1 in MPIDR"
    assert machine(0, Function.EVENT_GET_INFO, SHARED, 3) == 1
    assert machine(0, Function.EVENT_GET_INFO, SHARED, 4) == 1


def test_affinity_is_ignored_without_rm_pe() -> None:
    """RM_ANY names no PE."""
    assert Machine().register(0, SHARED, flags=0, affinity=NO_PE) == 0


def test_private_event_ignores_flags_and_affinity() -> None:
    """19: Linux passes zeros, TF-A's tests RM_PE and the raw MPIDR; both deliver locally."""
    machine = Machine()
    assert machine.register(0, PRIVATE, flags=0) == 0
    assert machine.register(1, PRIVATE, flags=1, affinity=0x8000_0001) == 0
    for pe in (0, 1):
        assert machine(pe, Function.EVENT_ENABLE, PRIVATE) == 0
        machine.trigger(PRIVATE, pe)
    assert machine.deliveries == [(0, PRIVATE), (1, PRIVATE)]
    assert Machine().register(0, PRIVATE, flags=1, affinity=NO_PE) == 0


def test_private_instances_are_separate() -> None:
    """20."""
    machine = Machine()
    assert machine.register(0, PRIVATE) == 0
    assert machine.status(0, PRIVATE) == 1
    assert machine.status(1, PRIVATE) == 0
    assert machine(1, Function.EVENT_ENABLE, PRIVATE) == DENIED
    assert machine(1, Function.EVENT_DISABLE, PRIVATE) == DENIED
    assert machine(1, Function.EVENT_UNREGISTER, PRIVATE) == DENIED


def test_shared_event_is_one_for_all() -> None:
    """21."""
    machine = Machine()
    assert machine.register(0, SHARED) == 0
    assert machine.status(1, SHARED) == 1
    assert machine.register(1, SHARED) == DENIED
    assert machine(1, Function.EVENT_ENABLE, SHARED) == 0
    assert machine.status(0, SHARED) == 3
    assert machine(1, Function.EVENT_DISABLE, SHARED) == 0
    assert machine(1, Function.EVENT_UNREGISTER, SHARED) == 0
    assert machine.status(0, SHARED) == 0


@BOTH
def test_enable_and_disable(event: int) -> None:
    """22, 23."""
    machine = Machine()
    assert machine(0, Function.EVENT_ENABLE, event) == DENIED
    assert machine(0, Function.EVENT_DISABLE, event) == DENIED
    assert machine.register(0, event) == 0
    for function, state in (
        (Function.EVENT_ENABLE, 3),
        (Function.EVENT_ENABLE, 3),
        (Function.EVENT_DISABLE, 1),
        (Function.EVENT_DISABLE, 1),
    ):
        assert machine(0, function, event) == 0
        assert machine.status(0, event) == state


@BOTH
def test_enable_and_disable_while_running(event: int) -> None:
    """24."""
    machine = Machine()
    machine.run(0, event)
    assert machine.status(0, event) == 7
    assert machine(0, Function.EVENT_DISABLE, event) == 0
    assert machine.status(0, event) == 5
    assert machine(0, Function.EVENT_ENABLE, event) == 0
    assert machine.status(0, event) == 7
    assert machine.deliveries == [(0, event)]


def test_info_of_event_0() -> None:
    """25: the value 0 for "signalable?" means that it is."""
    machine = Machine()
    assert [machine(0, Function.EVENT_GET_INFO, 0, info) for info in range(3)] == [0, 0, 0]
    for info in (3, 4, 5, 0xFFFF_FFFF_FFFF_FFFF):
        assert machine(0, Function.EVENT_GET_INFO, 0, info) == INVALID


def test_info_needs_no_registration() -> None:
    """25-27: type, signalable, priority."""
    machine = Machine()
    expected = {PRIVATE: [0, 1, 0], PRIVATE_CRITICAL: [0, 1, 1], SHARED: [1, 1, 0], SHARED_CRITICAL: [1, 1, 1]}
    for event, values in expected.items():
        assert [machine(0, Function.EVENT_GET_INFO, event, info) for info in range(3)] == values
        assert machine(0, Function.EVENT_GET_INFO, event, 5) == INVALID


def test_info_about_routing() -> None:
    """26."""
    machine = Machine()
    assert machine(0, Function.EVENT_GET_INFO, SHARED, 3) == DENIED
    assert machine(0, Function.EVENT_GET_INFO, SHARED, 4) == DENIED
    assert machine.register(0, SHARED) == 0
    assert machine(0, Function.EVENT_GET_INFO, SHARED, 3) == 0
    assert machine(0, Function.EVENT_GET_INFO, SHARED, 4) == INVALID
    machine.to_state(0, SHARED_CRITICAL, 4)
    assert machine(0, Function.EVENT_GET_INFO, SHARED_CRITICAL, 3) == DENIED, "no longer registered"


def test_routing_set() -> None:
    """28."""
    machine = Machine()
    assert machine.register(0, SHARED) == 0
    assert machine(0, Function.EVENT_ROUTING_SET, SHARED, 1, 0x8000_0001) == 0
    assert machine(0, Function.EVENT_GET_INFO, SHARED, 4) == 1
    assert machine(0, Function.EVENT_ENABLE, SHARED) == 0
    machine.trigger(SHARED)
    assert machine.deliveries == [(1, SHARED)]
    assert machine(1, Function.EVENT_COMPLETE, 0) is None
    assert machine(1, Function.EVENT_DISABLE, SHARED) == 0
    assert machine(1, Function.EVENT_ROUTING_SET, SHARED, 0, 0) == 0
    assert machine(0, Function.EVENT_GET_INFO, SHARED, 3) == 0


def test_register_forgets_the_routing_of_an_earlier_registration() -> None:
    """A new registration begins with its own routing."""
    machine = Machine()
    assert machine.register(0, SHARED, flags=1, affinity=1) == 0
    assert machine(0, Function.EVENT_UNREGISTER, SHARED) == 0
    assert machine.register(0, SHARED) == 0
    assert machine(0, Function.EVENT_GET_INFO, SHARED, 3) == 0


@pytest.mark.parametrize("state", [0, 3, 7, 5, 4])
def test_routing_set_needs_state_1(state: int) -> None:
    """29: with affinity 0 and mode 1, as TF-A's tests do."""
    machine = Machine()
    machine.to_state(0, SHARED, state)
    assert machine(0, Function.EVENT_ROUTING_SET, SHARED, 1, 0) == DENIED


def test_routing_set_with_bad_parameters() -> None:
    """30."""
    machine = Machine()
    assert machine.register(0, SHARED) == 0
    assert machine.register(0, 0) == 0
    for event, mode, affinity in (
        (SHARED, 2, 0),
        (SHARED, 1, NO_PE),
        (0x1_0000, 0, 0),
        (0, 0, 0),
        (SHARED, 1 << 32, 0),
    ):
        assert machine(0, Function.EVENT_ROUTING_SET, event, mode, affinity) == INVALID
    assert machine(0, Function.EVENT_ROUTING_SET, SHARED, 0, NO_PE) == 0, "RM_ANY names no PE"


def test_unregister_while_running_elsewhere() -> None:
    """Any PE may unregister a shared event; only the running one completes it."""
    machine = Machine()
    machine.run(1, SHARED)
    assert machine(0, Function.EVENT_COMPLETE, 0) == DENIED
    assert machine(0, Function.EVENT_UNREGISTER, SHARED) == PENDING
    assert machine.status(0, SHARED) == 4
    assert machine(1, Function.EVENT_COMPLETE, 0) is None
    assert machine.status(0, SHARED) == 0
