"""Conformance 82-86 as far as they are the core's: CPU_ON, CPU_OFF, suspend, system reset."""

from __future__ import annotations

from qemu_sdei.sdei import Trigger
from qemu_sdei.sdei.constants import Function
from tests.sdei.machine import PENDING, PRIVATE, PRIVATE_CRITICAL, SHARED, SHARED_CRITICAL, Machine


def test_off_and_on() -> None:
    """82."""
    machine = Machine()
    machine.enable(1, PRIVATE)
    machine.enable(1, SHARED)
    machine.trigger(PRIVATE, 1)
    machine.trigger(PRIVATE, 1)
    machine.dispatcher.power_off(1)
    machine.dispatcher.power_on(1)
    assert machine(1, Function.PE_MASK) == 0
    assert machine.status(1, PRIVATE) == 0
    assert machine.status(1, SHARED) == 3
    assert machine.dispatcher.running(1) == ()
    machine.enable(1, PRIVATE)
    machine(1, Function.PE_UNMASK)
    assert machine.deliveries == [(1, PRIVATE)]


def test_suspend_keeps_everything_and_masks() -> None:
    """83; what comes meanwhile is delivered after the wake-up."""
    machine = Machine()
    machine.enable(0, PRIVATE)
    machine.enable(0, SHARED)
    machine.hold_kicks = True
    machine.trigger(PRIVATE, 0)
    machine.dispatcher.suspended(0)
    assert machine.frame(0) is None
    assert machine.status(0, PRIVATE) == 3
    assert machine.status(0, SHARED) == 3
    assert machine(0, Function.PE_UNMASK) == 0
    assert machine.deliveries == [(0, PRIVATE)]


def test_event_for_a_pe_that_is_off() -> None:
    """84: it waits, the PE stays off, and any PE may unregister it."""
    machine = Machine()
    assert machine.register(0, SHARED, flags=1, affinity=1) == 0
    assert machine(0, Function.EVENT_ENABLE, SHARED) == 0
    machine.dispatcher.power_off(1)
    assert machine.trigger(SHARED) is Trigger.QUEUED
    assert machine.dispatcher.kicks == []
    assert not machine.dispatcher.status()["pes"][1]["on"]
    assert machine.dispatcher.dispatch(1, machine.regs[1], 0, 0) is None
    machine.dispatcher.power_on(1)
    assert machine(1, Function.PE_UNMASK) == 0
    assert machine.deliveries == [(1, SHARED)]
    assert machine(1, Function.EVENT_COMPLETE, 0) is None
    machine.dispatcher.power_off(1)
    machine.trigger(SHARED)
    assert machine(0, Function.EVENT_UNREGISTER, SHARED) == 0


def test_off_inside_nested_handlers() -> None:
    """6.5.4: both complete implicitly; the shared one may run again, elsewhere."""
    machine = Machine()
    machine.enable(0, SHARED)
    machine.enable(1, PRIVATE_CRITICAL)
    machine.trigger(SHARED, 1)
    machine.trigger(PRIVATE_CRITICAL, 1)
    assert machine.dispatcher.running(1) == (SHARED, PRIVATE_CRITICAL)
    machine.trigger(SHARED)
    machine.dispatcher.power_off(1)
    assert machine.dispatcher.running(1) == ()
    machine.serve_kicks()
    assert machine.deliveries[2:] == [(0, SHARED)]


def test_off_completes_a_pending_unregistration() -> None:
    """The event is free again."""
    machine = Machine()
    machine.run(1, SHARED_CRITICAL)
    assert machine(0, Function.EVENT_UNREGISTER, SHARED_CRITICAL) == PENDING
    machine.dispatcher.power_off(1)
    assert machine.status(0, SHARED_CRITICAL) == 0
    machine.enable(0, SHARED_CRITICAL)


def test_nothing_is_known_of_the_old_handler_after_power_on() -> None:
    """No context survives: a CPU that comes back cannot complete what it left."""
    machine = Machine()
    machine.run(1, PRIVATE)
    machine.dispatcher.power_on(1)
    assert machine(1, Function.EVENT_COMPLETE, 0) == -3
    assert machine(1, Function.EVENT_CONTEXT, 0) == -3


def test_system_reset() -> None:
    """Everything is gone and everything is off; what the owner holds are the same objects."""
    machine = Machine()
    dispatcher = machine.dispatcher
    attention, kicks, handlers = dispatcher.attention, dispatcher.kicks, dispatcher.handlers
    fresh = Machine(power=False).dispatcher.snapshot()
    machine.run(0, PRIVATE)
    machine.run(1, SHARED)
    machine.enable(0, SHARED_CRITICAL)
    machine.hold_kicks = True
    machine.trigger(SHARED_CRITICAL)
    dispatcher.reset()
    assert dispatcher.snapshot() == fresh
    assert (dispatcher.attention, dispatcher.kicks, dispatcher.handlers) == (bytearray(2), [], handlers)
    assert dispatcher.attention is attention
    assert dispatcher.kicks is kicks
    machine.deliveries.clear()
    machine.hold_kicks = False
    dispatcher.power_on(0)
    assert machine(0, Function.PE_UNMASK) == 0
    machine.enable(0, PRIVATE)
    machine.trigger(PRIVATE, 0)
    assert machine.deliveries == [(0, PRIVATE)]


def test_transitions_are_told() -> None:
    """What a trace shows of one life of an event."""
    machine = Machine()
    seen: list[tuple[int, int, int, int, str]] = []
    machine.dispatcher.on_transition = lambda *change: seen.append(change)
    machine.enable(0, PRIVATE)
    machine.trigger(PRIVATE, 0)
    machine(0, Function.EVENT_UNREGISTER, PRIVATE)
    machine(0, Function.EVENT_COMPLETE, 0)
    machine.enable(1, SHARED)
    machine.enable(1, PRIVATE)
    machine.dispatcher.power_off(1)
    machine.dispatcher.reset()
    assert seen == [
        (PRIVATE, 0, 0, 1, "REGISTER"),
        (PRIVATE, 0, 1, 3, "ENABLE"),
        (PRIVATE, 0, 3, 7, "DISPATCH"),
        (PRIVATE, 0, 7, 4, "UNREGISTER"),
        (PRIVATE, 0, 4, 0, "COMPLETE"),
        (SHARED, 1, 0, 1, "REGISTER"),
        (SHARED, 1, 1, 3, "ENABLE"),
        (PRIVATE, 1, 0, 1, "REGISTER"),
        (PRIVATE, 1, 1, 3, "ENABLE"),
        (PRIVATE, 1, 3, 0, "PE_RESET"),
        (SHARED, -1, 3, 0, "RESET"),
    ]


def test_status_for_people() -> None:
    """One look says who runs what."""
    machine = Machine()
    machine.run(1, SHARED)
    machine.dispatcher.power_off(0)
    status = machine.dispatcher.status()
    assert status["pes"] == [
        {"pe": 0, "affinity": 0, "on": False, "masked": True, "running": []},
        {"pe": 1, "affinity": 1, "on": True, "masked": False, "running": [SHARED]},
    ]
    shared = next(event for event in status["events"] if event["event"] == SHARED)
    assert shared["instances"] == [
        {
            "pe": None,
            "state": "running",
            "registered": True,
            "enabled": True,
            "running": True,
            "pending": False,
            "waits": None,
            "triggers": {"accepted": 1, "merged": 0, "dropped": 0, "delivered": 1},
            "routed_to": None,
            "running_on": 1,
        }
    ]
    private = next(event for event in status["events"] if event["event"] == PRIVATE)
    assert [instance["pe"] for instance in private["instances"]] == [0, 1]
