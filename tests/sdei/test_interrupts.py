"""Conformance 59, 63-68: interrupts bound to events, as far as the core sees them."""

from __future__ import annotations

import pytest

from qemu_sdei.errors import NotDeliveredError, UsageError
from qemu_sdei.sdei import Dispatcher, MachineDescription
from qemu_sdei.sdei.constants import PRIVATE_SLOTS, SHARED_SLOTS, Function, Info
from qemu_sdei.sdei.interrupts import Wanted
from tests.sdei.machine import (
    DENIED,
    INVALID,
    NO_PE,
    OUT_OF_RESOURCE,
    PENDING,
    PRIVATE,
    SHARED,
    Machine,
    profile,
)

TIMER = 27
ALARM = 34
P = PRIVATE_SLOTS
S = SHARED_SLOTS


def bound(pes: int = 2) -> Machine:
    """A machine with the timer bound to P and the alarm to S."""
    machine = Machine(pes)
    assert machine(0, Function.INTERRUPT_BIND, TIMER) == P
    assert machine(0, Function.INTERRUPT_BIND, ALARM) == S
    return machine


def fire(machine: Machine, intid: int, pe: int) -> bool:
    """The interrupt is taken on `pe`; what follows from it follows."""
    owned = machine.dispatcher.interrupt(intid, pe)
    assert pe not in machine.dispatcher.kicks, "the PE is in an exchange already"
    machine.frame(pe)
    machine.serve_kicks()
    return owned


def told(machine: Machine) -> list[tuple[int, int, Wanted]]:
    """What the owner is told of the GIC since the last look."""
    claims = list(machine.dispatcher.interrupts)
    machine.dispatcher.interrupts.clear()
    return [(*claim, machine.dispatcher.wanted(*claim)) for claim in claims]


def test_bind() -> None:
    """63: an event number of the right type; again the same; on all PEs; normal, not signalable."""
    machine = bound()
    assert machine(1, Function.INTERRUPT_BIND, TIMER) == P
    assert machine(1, Function.INTERRUPT_BIND, 0xFFFF_0000_0000_0000 | ALARM) == S, "a 32-bit parameter"
    for event, shared in ((P, 0), (S, 1)):
        assert machine(1, Function.EVENT_GET_INFO, event, Info.TYPE) == shared
        assert machine(1, Function.EVENT_GET_INFO, event, Info.SIGNALABLE) == 1
        assert machine(1, Function.EVENT_GET_INFO, event, Info.PRIORITY) == 0
        assert machine.status(1, event) == 0
    assert machine(0, Function.EVENT_SIGNAL, P, 0) == INVALID
    assert told(machine) == [], "binding alone changes nothing at the GIC"


@pytest.mark.parametrize("intid", [0, 15, 1020, 1023, 1024, 1056, 1119, 4096, 5119, 8192, 0xFFFF_FFFF])
def test_bind_what_cannot_be_bound(intid: int) -> None:
    """64; the extended ranges are out of range, because QEMU's GIC has none."""
    assert Machine()(0, Function.INTERRUPT_BIND, intid) == INVALID


def test_bind_what_this_machine_has() -> None:
    """The last SPI of its GIC, and not what the firmware keeps for itself."""
    dispatcher = Dispatcher(MachineDescription.default(), range(1), max_intid=287, reserved_intids=(40,))
    machine = Machine(1)
    machine.dispatcher = dispatcher
    dispatcher.power_on(0)
    assert machine(0, Function.INTERRUPT_BIND, 287) == S
    assert machine(0, Function.INTERRUPT_BIND, 288) == INVALID
    assert machine(0, Function.INTERRUPT_BIND, 40) == INVALID


def test_slots_are_used_up() -> None:
    """65: per type, and RELEASE makes room."""
    machine = Machine()
    assert [machine(0, Function.INTERRUPT_BIND, 16 + n) for n in range(4)] == [P + n for n in range(4)]
    assert machine(0, Function.INTERRUPT_BIND, 31) == OUT_OF_RESOURCE
    assert machine(0, Function.INTERRUPT_BIND, 18) == P + 2
    assert [machine(0, Function.INTERRUPT_BIND, 32 + n) for n in range(8)] == [S + n for n in range(8)]
    assert machine(0, Function.INTERRUPT_BIND, 99) == OUT_OF_RESOURCE
    assert machine(1, Function.INTERRUPT_RELEASE, P + 2) == 0
    assert machine(1, Function.INTERRUPT_BIND, 31) == P + 2
    assert machine(0, Function.INTERRUPT_BIND, 18) == OUT_OF_RESOURCE


@pytest.mark.parametrize("intid", [16, 31, 32, 1019])
def test_bind_without_slots(intid: int) -> None:
    """65, with no slot at all: KVM's SDEI, a compatibility switch."""
    machine = Machine(profile=profile(slots=(0, 0)))
    assert machine(0, Function.INTERRUPT_BIND, intid) == OUT_OF_RESOURCE
    assert machine(0, Function.INTERRUPT_RELEASE, P) == INVALID
    assert machine.status(0, P) == INVALID


def test_release() -> None:
    """66: once; then the slot is free and its event cannot be registered."""
    machine = bound()
    assert machine(0, Function.INTERRUPT_RELEASE, P) == 0
    assert machine(0, Function.INTERRUPT_RELEASE, P) == INVALID
    assert machine(0, Function.INTERRUPT_RELEASE, P + 1) == INVALID
    assert machine(0, Function.INTERRUPT_RELEASE, P + 4) == INVALID
    assert machine.register(0, P) == DENIED


SLOT_CALLS = (
    *(Function.EVENT_ENABLE, Function.EVENT_DISABLE, Function.EVENT_UNREGISTER, Function.EVENT_STATUS),
    *(Function.EVENT_GET_INFO, Function.EVENT_ROUTING_SET, Function.INTERRUPT_RELEASE, Function.EVENT_SIGNAL),
)


@pytest.mark.parametrize("slot", [P, P + 3, P + 4, S, S + 7, S + 8])
def test_a_number_that_was_never_handed_out(slot: int) -> None:
    """It is no event's: each call that takes a number says the same, whatever slots there are behind it."""
    machine = Machine()
    for function in SLOT_CALLS:
        assert machine(0, function, slot) == INVALID, function.name
    assert machine.register(0, slot) == INVALID
    machine.frame(0)
    assert machine.dispatcher.interrupts == []


@pytest.mark.parametrize("event", [P, S])
def test_a_reset_of_the_machine_forgets_numbers(event: int) -> None:
    """A number from before it is unknown; one that another PE has bound is known on each PE."""
    machine = bound()
    assert machine.status(1, event) == 0
    machine.dispatcher.reset()
    machine.dispatcher.power_on(1)
    assert machine.status(1, event) == INVALID


@pytest.mark.parametrize("event", [P, S])
def test_calls_on_a_free_slot(event: int) -> None:
    """An event whose interrupt was released: known, in state 0, and nobody can register it."""
    machine = bound()
    assert machine(0, Function.INTERRUPT_RELEASE, event) == 0
    assert machine.register(0, event, flags=2) == INVALID, "INVALID before DENIED"
    assert machine.register(0, event) == DENIED
    assert machine(0, Function.EVENT_ENABLE, event) == DENIED
    assert machine(0, Function.EVENT_DISABLE, event) == DENIED
    assert machine(0, Function.EVENT_UNREGISTER, event) == DENIED
    assert machine(0, Function.EVENT_STATUS, event) == 0
    assert machine(0, Function.EVENT_GET_INFO, event, Info.TYPE) == (event == S)
    assert machine(0, Function.EVENT_ROUTING_SET, event, 0, 0) == INVALID
    assert machine(0, Function.EVENT_SIGNAL, event, 0) == INVALID
    assert machine.dispatcher.interrupts == []


@pytest.mark.parametrize("state", [1, 3, 7, 5, 4])
@pytest.mark.parametrize("event", [P, S])
def test_release_while_registered(event: int, state: int) -> None:
    """67: denied in every state but 0, whichever PE asks."""
    machine = bound()
    machine.to_state(1, event, state)
    assert machine(0, Function.INTERRUPT_RELEASE, event) == DENIED
    assert machine(1, Function.INTERRUPT_RELEASE, event) == DENIED
    assert machine.status(1, event) == state
    assert machine(0, Function.INTERRUPT_BIND, TIMER if event == P else ALARM) == event


def test_interrupt_between_register_and_enable() -> None:
    """68: it stays pending and is delivered once; one from before REGISTER never was the firmware's."""
    machine = bound()
    assert not fire(machine, TIMER, 0)
    assert machine.register(0, P) == 0
    assert fire(machine, TIMER, 0)
    assert machine.deliveries == []
    assert machine(0, Function.EVENT_ENABLE, P) == 0
    assert machine.deliveries == [(0, P)]
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    assert machine.deliveries == [(0, P)]


def test_private_interrupts_are_their_pes() -> None:
    """70: each PE has its own registration, its own trigger."""
    machine = bound(3)
    for pe in (0, 2):
        machine.enable(pe, P)
    assert fire(machine, TIMER, 2)
    assert not fire(machine, TIMER, 1)
    assert machine.deliveries == [(2, P)]
    assert fire(machine, TIMER, 0)
    assert machine.deliveries == [(2, P), (0, P)]


def test_shared_interrupt_goes_where_it_is_routed() -> None:
    """Whichever CPU the GIC interrupts: the event's own routing decides."""
    machine = bound(3)
    assert machine.register(1, S, flags=1, affinity=2) == 0
    assert machine(1, Function.EVENT_ENABLE, S) == 0
    assert fire(machine, ALARM, 0)
    assert machine.deliveries == [(2, S)]
    assert machine(2, Function.EVENT_COMPLETE, 0) is None
    assert machine(0, Function.EVENT_UNREGISTER, S) == 0
    machine.enable(0, S)
    assert fire(machine, ALARM, 1)
    assert machine.deliveries[-1] == (1, S), "any PE: the one that was interrupted, if it can"
    assert machine(1, Function.EVENT_COMPLETE, 0) is None
    machine.dispatcher.power_off(0)
    machine.serve_kicks()
    assert fire(machine, ALARM, 0), "a CPU that is off can be the one that the GIC interrupts"
    assert machine.deliveries[-1] == (1, S)


@pytest.mark.parametrize(("event", "intid", "owner"), [(P, TIMER, 1), (S, ALARM, -1)])
def test_what_the_gic_is_told(event: int, intid: int, owner: int) -> None:
    """Taken over by REGISTER, kept quiet until the handler has completed, given back by UNREGISTER."""
    machine = bound()
    machine.register(1, event)
    assert told(machine) == [(intid, owner, Wanted.LISTEN)]
    assert machine.register(1, event) == DENIED
    machine(1, Function.EVENT_ENABLE, event)
    machine(1, Function.EVENT_DISABLE, event)
    machine(1, Function.EVENT_ENABLE, event)
    assert told(machine) == []
    fire(machine, intid, 1)
    assert machine.dispatcher.wanted(intid, 1) == Wanted.HOLD
    machine(1, Function.EVENT_COMPLETE, 0)
    assert told(machine) == [(intid, owner, Wanted.LISTEN)]
    fire(machine, intid, 1)
    assert machine(1, Function.EVENT_UNREGISTER, event) == PENDING
    assert machine.dispatcher.wanted(intid, 1) == Wanted.HOLD
    assert machine.dispatcher.interrupt(intid, 1), "it is still the firmware's"
    machine(1, Function.EVENT_COMPLETE, 0)
    assert told(machine) == [(intid, owner, Wanted.FREE)]
    assert not machine.dispatcher.interrupt(intid, 1)


def test_a_pending_interrupt_is_not_listened_to() -> None:
    """It fired while disabled: the next one may come only when the handler has completed."""
    machine = bound()
    machine.register(0, P)
    fire(machine, TIMER, 0)
    assert machine.dispatcher.wanted(TIMER, 0) == Wanted.HOLD
    told(machine)
    assert machine(0, Function.EVENT_UNREGISTER, P) == 0
    assert told(machine) == [(TIMER, 0, Wanted.FREE)]
    machine.enable(0, P)
    assert machine.deliveries == [], "a trigger from before REGISTER is dropped"


def test_injection_into_a_bound_event() -> None:
    """The host can play the device; the interrupt itself may come on top of it."""
    machine = bound()
    with pytest.raises(NotDeliveredError, match="not registered"):
        machine.trigger(P, 0)
    machine.enable(0, P)
    machine.trigger(P, 0)
    fire(machine, TIMER, 0)
    told(machine)
    machine(0, Function.EVENT_COMPLETE, 0)
    assert machine.deliveries == [(0, P), (0, P)]
    assert told(machine) == [(TIMER, 0, Wanted.HOLD)], "its handler runs again"
    with pytest.raises(UsageError, match=r"no event 0x40ff0001.*0x40ff0000 \(bound-private-0\)"):
        machine.trigger(P + 1, 0)


def test_private_reset_keeps_bindings() -> None:
    """58, 60: the registrations go, the bindings stay."""
    machine = bound()
    machine.enable(0, P)
    machine.enable(1, P)
    told(machine)
    assert machine(0, Function.PRIVATE_RESET) == 0
    assert told(machine) == [(TIMER, 0, Wanted.FREE)]
    assert machine.status(1, P) == 3
    assert machine.register(0, P) == 0


def test_shared_reset_releases_bindings() -> None:
    """59: private ones too; one that is registered is kept and said."""
    machine = bound()
    machine.enable(0, S)
    assert machine(1, Function.SHARED_RESET) == 0
    assert (ALARM, -1, Wanted.FREE) in told(machine)
    assert machine(0, Function.INTERRUPT_RELEASE, S) == INVALID
    assert machine(0, Function.INTERRUPT_RELEASE, P) == INVALID
    machine = bound()
    machine.enable(1, P)
    assert machine(0, Function.SHARED_RESET) == DENIED
    assert machine.status(1, P) == 3
    assert machine(0, Function.INTERRUPT_RELEASE, S) == INVALID, "the others are released"
    assert machine(0, Function.INTERRUPT_BIND, TIMER) == P
    assert machine(1, Function.PRIVATE_RESET) == 0
    assert machine(0, Function.SHARED_RESET) == 0


def test_shared_reset_in_a_handler_keeps_bindings() -> None:
    """60: denied, and nothing is released, not even what could be."""
    machine = bound()
    machine.run(0, SHARED)
    assert machine(0, Function.SHARED_RESET) == DENIED
    assert machine(0, Function.EVENT_COMPLETE, 0) is None
    assert machine(0, Function.INTERRUPT_RELEASE, P) == 0
    assert machine(0, Function.INTERRUPT_RELEASE, S) == 0


def test_bind_inside_a_handler() -> None:
    """62, ACS38."""
    machine = Machine()
    machine.run(0, PRIVATE)
    assert machine(0, Function.INTERRUPT_BIND, TIMER) == P
    assert machine(0, Function.INTERRUPT_RELEASE, P) == 0


def test_routing_set() -> None:
    """Of a bound shared event, as of any other."""
    machine = bound(3)
    assert machine(0, Function.EVENT_ROUTING_SET, S, 1, 2) == DENIED
    assert machine(0, Function.EVENT_ROUTING_SET, S, 1, NO_PE) == INVALID
    machine.register(0, S)
    assert machine(0, Function.EVENT_ROUTING_SET, S, 1, 2) == 0
    assert machine(0, Function.EVENT_GET_INFO, S, Info.ROUTING_AFFINITY) == 2


def test_power() -> None:
    """A CPU that goes off gives its PPI back, also out of a handler; bindings outlive it, but not a system reset."""
    machine = bound()
    machine.run(1, P)
    machine.enable(1, S)
    told(machine)
    machine.dispatcher.power_off(1)
    assert (TIMER, 1, Wanted.FREE) in told(machine)
    assert machine.dispatcher.wanted(ALARM, 1) == Wanted.LISTEN
    machine.dispatcher.power_on(1)
    assert machine.register(1, P) == 0
    machine.dispatcher.reset()
    assert machine.dispatcher.interrupts == []
    machine.dispatcher.power_on(0)
    assert machine.register(0, P) == INVALID
    assert machine(0, Function.INTERRUPT_RELEASE, S) == INVALID


def test_a_registration_that_the_owner_refuses() -> None:
    """The guest is handling the interrupt just now (TFA)."""
    machine = bound()
    machine.register(0, P)
    assert machine.dispatcher.refuse(TIMER, 0) == DENIED
    assert machine.status(0, P) == 0


def test_status_shows_what_is_bound() -> None:
    """For people: free slots are not events."""
    machine = bound()
    found = {entry["event"]: entry for entry in machine.dispatcher.status()["events"]}
    assert (found[P]["intid"], found[S]["intid"]) == (TIMER, ALARM)
    assert P + 1 not in found
    assert "intid" not in found[PRIVATE]
    assert len(found[P]["instances"]) == 2
