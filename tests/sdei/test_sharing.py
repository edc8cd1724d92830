"""Conformance 71-81: signalling, priorities, sharing, hand-over between PEs."""

from __future__ import annotations

import pytest

from qemu_sdei.errors import NotDeliveredError, UsageError
from qemu_sdei.sdei import Trigger
from qemu_sdei.sdei.constants import Function
from tests.sdei.machine import (
    INVALID,
    NO_PE,
    PRIVATE,
    PRIVATE_2,
    PRIVATE_CRITICAL,
    SHARED,
    SHARED_2,
    SHARED_CRITICAL,
    Machine,
    profile,
)


def complete(machine: Machine, pe: int) -> None:
    """The innermost handler of `pe` completes."""
    assert machine(pe, Function.EVENT_COMPLETE, 0) is None


@pytest.mark.parametrize("event", [1, PRIVATE, SHARED, 0x1_0000, 0x8000_0000])
def test_only_event_0_is_signalable_by_default(event: int) -> None:
    """71."""
    machine = Machine()
    if event in (PRIVATE, SHARED):
        machine.enable(0, event)
    assert machine(0, Function.EVENT_SIGNAL, event, 0) == INVALID


@pytest.mark.parametrize("affinity", [NO_PE, 0xFFFF_FFFF_FFFF_FFFF, 2, 0x100, 1 << 32])
def test_signal_to_no_pe(affinity: int) -> None:
    """71."""
    machine = Machine()
    machine.enable(0, 0)
    assert machine.signal(0, affinity) == INVALID


def test_signal_takes_a_raw_mpidr() -> None:
    """Bits of MPIDR_EL1 that are not affinity do not matter: RES1, U, MT."""
    machine = Machine()
    machine.enable(1, 0)
    assert machine.signal(0, 0xC100_0001) == 0
    assert machine.deliveries == [(1, 0)]


def test_signal_each_other_pe() -> None:
    """72."""
    machine = Machine(4)
    for pe in range(4):
        assert machine.register(pe, 0, argument=pe * 16) == 0
        assert machine(pe, Function.EVENT_ENABLE, 0) == 0
    for pe in range(1, 4):
        assert machine.signal(0, pe) == 0
        assert machine.x(pe, 1) == pe * 16
    assert machine.deliveries == [(1, 0), (2, 0), (3, 0)]


def test_signal_kicks_the_target_and_only_it() -> None:
    """The owner learns whom to interrupt; the caller itself needs no interrupt."""
    machine = Machine(3)
    machine.hold_kicks = True
    machine.enable(2, 0)
    assert machine.signal(0, 2) == 0
    assert machine.dispatcher.kicks == [2]
    assert list(machine.dispatcher.attention) == [0, 0, 1]
    machine.dispatcher.kicks.clear()
    assert machine.signal(0, 2) == 0
    assert machine.dispatcher.kicks == [], "merged: it is on its way"
    assert machine.signal(2, 2) == 0
    assert machine.deliveries == [(2, 0)]
    assert machine.dispatcher.kicks == []


@pytest.mark.parametrize("gate", ["masked", "disabled"])
def test_signal_pends_behind_a_closed_gate(gate: str) -> None:
    """73."""
    machine = Machine()
    assert machine.register(1, 0) == 0
    if gate == "masked":
        assert machine(1, Function.EVENT_ENABLE, 0) == 0
        assert machine(1, Function.PE_MASK) == 1
    for _ in range(3):
        assert machine.signal(0, 1) == 0
    assert machine.deliveries == []
    assert machine(1, Function.PE_UNMASK if gate == "masked" else Function.EVENT_ENABLE, 0) == 0
    complete(machine, 1)
    assert machine.deliveries == [(1, 0)], "one bit: they merged (74)"


def test_signal_of_what_nobody_registered() -> None:
    """73: also on a PE that is off."""
    machine = Machine()
    assert machine.signal(0, 1) == INVALID
    machine.dispatcher.power_off(1)
    assert machine.signal(0, 1) == INVALID


def test_strict_signal() -> None:
    """73, as TF-A's tests want it."""
    machine = Machine(profile=profile(strict_signal=True))
    assert machine.register(1, 0) == 0
    assert machine.signal(0, 1) == INVALID
    assert machine(1, Function.EVENT_ENABLE, 0) == 0
    assert machine(1, Function.PE_MASK) == 1
    assert machine.signal(0, 1) == INVALID
    assert machine(1, Function.PE_UNMASK) == 0
    assert machine.deliveries == [], "never delivered"
    assert machine.signal(0, 1) == 0
    assert machine.signal(0, 1) == 0, "while it runs"
    assert machine.deliveries == [(1, 0)]


def test_signal_from_its_own_handler() -> None:
    """75."""
    machine = Machine()
    machine.run(0, 0)
    assert machine.signal(0, 0) == 0
    assert machine.deliveries == [(0, 0)]
    complete(machine, 0)
    assert machine.deliveries == [(0, 0)] * 2
    complete(machine, 0)
    assert machine.deliveries == [(0, 0)] * 2


def test_events_of_one_class_follow_each_other() -> None:
    """76; critical ones come first."""
    machine = Machine()
    for event in (PRIVATE_2, PRIVATE_CRITICAL, SHARED):
        machine.enable(0, event)
    machine(1, Function.PE_MASK)
    machine.run(0, PRIVATE)
    machine(0, Function.PE_MASK)
    for event in (SHARED, PRIVATE_2, PRIVATE_CRITICAL):
        machine.trigger(event, 0)
    complete(machine, 0)
    machine(0, Function.PE_UNMASK)
    for _ in range(3):
        complete(machine, 0)
    assert [event for _, event in machine.deliveries] == [PRIVATE, PRIVATE_CRITICAL, PRIVATE_2, SHARED]


@pytest.mark.parametrize("event", [PRIVATE_CRITICAL, SHARED_CRITICAL])
def test_nothing_preempts_a_critical_handler(event: int) -> None:
    """77."""
    machine = Machine(1)
    other = SHARED_CRITICAL if event == PRIVATE_CRITICAL else PRIVATE_CRITICAL
    machine.enable(0, other)
    machine.enable(0, PRIVATE)
    machine.run(0, event)
    machine.trigger(other, 0)
    machine.trigger(PRIVATE, 0)
    assert machine.deliveries == [(0, event)]
    complete(machine, 0)
    assert machine.deliveries == [(0, event), (0, other)]
    complete(machine, 0)
    assert machine.deliveries[2:] == [(0, PRIVATE)]


@pytest.mark.parametrize("only", range(4))
def test_rm_any_is_taken_by_the_one_that_can(only: int) -> None:
    """78: one PE per trigger; all but one masked: that one."""
    machine = Machine(4)
    machine.enable(0, SHARED)
    machine.trigger(SHARED)
    assert len(machine.deliveries) == 1
    complete(machine, machine.deliveries[0][0])
    machine.deliveries.clear()
    for pe in range(4):
        if pe != only:
            machine(pe, Function.PE_MASK)
    machine.trigger(SHARED)
    assert machine.deliveries == [(only, SHARED)]


def test_rm_any_prefers_the_pe_that_the_host_names() -> None:
    """`inject --vcpu` on a shared event is a wish."""
    machine = Machine(4)
    machine.enable(0, SHARED)
    machine.trigger(SHARED, 3)
    assert machine.deliveries == [(3, SHARED)]
    complete(machine, 3)
    machine(2, Function.PE_MASK)
    machine.trigger(SHARED, 2)
    assert machine.deliveries[1:] == [(0, SHARED)]


def test_shared_event_runs_once_at_a_time() -> None:
    """79."""
    machine = Machine(3)
    machine.enable(0, SHARED)
    machine.trigger(SHARED, 0)
    assert machine.trigger(SHARED, 1) is Trigger.QUEUED
    assert machine.trigger(SHARED, 2) is Trigger.MERGED
    assert machine.deliveries == [(0, SHARED)]
    complete(machine, 0)
    assert machine.deliveries == [(0, SHARED)] * 2
    complete(machine, 0)
    assert machine.deliveries == [(0, SHARED)] * 2


def test_second_run_goes_elsewhere_if_the_first_pe_closed() -> None:
    """Completion on a PE that masked itself in the handler."""
    machine = Machine(3)
    machine.enable(0, SHARED)
    machine.trigger(SHARED, 0)
    machine.trigger(SHARED)
    machine(0, Function.PE_MASK)
    complete(machine, 0)
    assert machine.deliveries == [(0, SHARED), (1, SHARED)]


@pytest.mark.parametrize("how", ["mask", "handler", "off", "suspend"])
def test_hand_over(how: str) -> None:
    """A PE that was asked to take an RM_ANY event closes before it does: the next one is asked."""
    machine = Machine(3)
    machine.enable(0, SHARED)
    machine.enable(1, PRIVATE)
    machine(0, Function.PE_MASK)
    machine.hold_kicks = True
    machine.trigger(SHARED)
    assert machine.dispatcher.kicks == [1]
    machine.dispatcher.kicks.clear()
    if how == "mask":
        machine(1, Function.PE_MASK)
    elif how == "handler":
        machine.trigger(PRIVATE, 1)
        machine.dispatcher.kicks.clear()
        assert machine.frame(1) == PRIVATE, "the lower number first"
    elif how == "off":
        machine.dispatcher.power_off(1)
    else:
        machine.dispatcher.suspended(1)
    if how == "mask":
        assert machine.deliveries == []
    assert machine.dispatcher.kicks == [2]
    machine.hold_kicks = False
    machine.serve_kicks()
    assert machine.deliveries[-1] == (2, SHARED)


def test_nobody_left_then_the_first_to_open_takes_it() -> None:
    """All masked: it waits, for RM_ANY and for the PE it is routed to alike."""
    machine = Machine(3)
    machine.enable(0, SHARED)
    assert machine.register(0, SHARED_2, flags=1, affinity=1) == 0
    assert machine(0, Function.EVENT_ENABLE, SHARED_2) == 0
    for pe in range(3):
        machine(pe, Function.PE_MASK)
    machine.trigger(SHARED)
    machine.trigger(SHARED_2)
    machine(2, Function.PE_UNMASK)
    assert machine.deliveries == [(2, SHARED)]
    machine(0, Function.PE_UNMASK)
    assert machine.deliveries == [(2, SHARED)]
    machine(1, Function.PE_UNMASK)
    assert machine.deliveries == [(2, SHARED), (1, SHARED_2)]


def test_enable_by_another_pe_kicks_the_routed_one() -> None:
    """The call that opens the gate may come from anywhere."""
    machine = Machine(2)
    assert machine.register(0, SHARED, flags=1, affinity=1) == 0
    machine.trigger(SHARED)
    machine.hold_kicks = True
    assert machine(0, Function.EVENT_ENABLE, SHARED) == 0
    assert machine.dispatcher.kicks == [1]


def test_normal_shared_event_waits_for_a_pe_without_handler() -> None:
    """A PE in a normal handler does not count as free, for a critical event it does."""
    machine = Machine(2)
    machine.enable(0, SHARED)
    machine.enable(0, SHARED_CRITICAL)
    machine.run(0, PRIVATE)
    machine.run(1, PRIVATE)
    machine.trigger(SHARED)
    assert machine.deliveries == [(0, PRIVATE), (1, PRIVATE)]
    machine.trigger(SHARED_CRITICAL)
    assert machine.deliveries[2:] == [(0, SHARED_CRITICAL)]
    complete(machine, 1)
    assert machine.deliveries[3:] == [(1, SHARED)]


def test_trigger_of_what_does_not_exist() -> None:
    """A slip of the user: a message with what there is."""
    machine = Machine()
    with pytest.raises(UsageError, match=r"no event 0x999; this guest has 0x0 \(software\)"):
        machine.trigger(0x999, 0)
    with pytest.raises(UsageError, match=r"no PE 2: this guest has PE 0\.\.1"):
        machine.trigger(PRIVATE, 2)
    with pytest.raises(UsageError, match="no PE -1"):
        machine.trigger(PRIVATE, -1)
    with pytest.raises(UsageError, match="private: say for which PE"):
        machine.trigger(PRIVATE)


def test_trigger_that_cannot_be_delivered() -> None:
    """Nothing stays pending."""
    machine = Machine(power=False)
    machine.dispatcher.power_on(0)
    with pytest.raises(NotDeliveredError, match="PE 1 is off"):
        machine.trigger(PRIVATE, 1)
    with pytest.raises(NotDeliveredError, match=r"event 0x100 \(private-a\) is not registered on PE 0"):
        machine.trigger(PRIVATE, 0)
    with pytest.raises(NotDeliveredError, match=r"event 0x200 \(shared-a\) is not registered"):
        machine.trigger(SHARED)
    assert machine.register(0, PRIVATE) == 0
    assert machine(0, Function.EVENT_ENABLE, PRIVATE) == 0
    machine(0, Function.PE_UNMASK)
    assert machine.deliveries == []


def test_why_pending() -> None:
    """In words, from registration to delivery."""
    machine = Machine()
    why = machine.dispatcher.why_pending
    assert why(PRIVATE, 0) == "event 0x100 (private-a) is not registered on PE 0"
    machine.register(0, PRIVATE)
    assert why(PRIVATE, 0) is None, "nothing is pending"
    machine.trigger(PRIVATE, 0)
    assert why(PRIVATE, 0) == "event 0x100 (private-a) is registered but disabled"
    machine(0, Function.PE_MASK)
    machine(0, Function.EVENT_ENABLE, PRIVATE)
    assert why(PRIVATE, 0) == "event 0x100 (private-a) waits: PE 0 is masked"
    machine(0, Function.PE_UNMASK)
    machine.enable(0, PRIVATE_2)
    machine.trigger(PRIVATE, 0)
    machine.trigger(PRIVATE_2, 0)
    assert why(PRIVATE, 0) == "event 0x100 (private-a) waits for its own handler, which still runs on PE 0"
    assert why(PRIVATE_2, 0) == (
        "event 0x101 (private-b) waits behind event 0x100 (private-a), whose handler runs on PE 0"
    )
    machine(0, Function.EVENT_UNREGISTER, PRIVATE)
    assert why(PRIVATE, 0) == "event 0x100 (private-a) is being unregistered: its handler still runs on PE 0"
    machine.hold_kicks = True
    machine.enable(1, PRIVATE)
    machine.enable(1, PRIVATE_2)
    machine.trigger(PRIVATE_2, 1)
    machine.trigger(PRIVATE, 1)
    assert why(PRIVATE_2, 1) == (
        "event 0x101 (private-b) waits behind event 0x100 (private-a), which is delivered first on PE 1"
    )
    assert why(PRIVATE, 1) is None, "it is about to be delivered"
    machine.dispatcher.power_off(1)
    assert why(PRIVATE, 1) == "PE 1 is off"


def test_why_pending_of_shared_events() -> None:
    """RM_ANY speaks of all PEs unless one is asked about."""
    machine = Machine()
    why = machine.dispatcher.why_pending
    machine.enable(0, SHARED)
    for pe in range(2):
        machine(pe, Function.PE_MASK)
    machine.trigger(SHARED)
    assert why(SHARED, None) == "event 0x200 (shared-a) waits: every PE is masked or off"
    assert why(SHARED, 1) == "event 0x200 (shared-a) waits: PE 1 is masked"
    machine(0, Function.PE_UNMASK)
    machine.enable(0, SHARED_2)
    machine.trigger(SHARED_2)
    assert why(SHARED_2, None) == ("event 0x201 (shared-b) waits: a handler runs on every PE that is not masked or off")
    assert why(SHARED, None) is None
    assert machine.register(0, SHARED_CRITICAL, flags=1, affinity=1) == 0
    assert machine(0, Function.EVENT_ENABLE, SHARED_CRITICAL) == 0
    machine.dispatcher.power_off(1)
    machine.trigger(SHARED_CRITICAL)
    assert why(SHARED_CRITICAL, 0) == "event 0x202 (shared-critical) waits: PE 1 is off"
