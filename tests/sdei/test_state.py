"""Snapshot and restore: the identity for good documents, a reason and no change for damaged ones."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from qemu_sdei.errors import ProtocolError
from qemu_sdei.sdei import CpuFeatures, Dispatcher, MachineDescription
from qemu_sdei.sdei.constants import SHARED_SLOTS, Function
from tests.sdei.machine import (
    BUSY_FEATURES,
    PRIVATE,
    PRIVATE_2,
    SHARED,
    SHARED_2,
    Machine,
    busy,
    profile,
)

DOCUMENT: Any = busy().dispatcher.snapshot()


def fresh() -> Dispatcher:
    """A dispatcher that a document of `busy` fits."""
    return Dispatcher(MachineDescription.default(), range(4), features=BUSY_FEATURES)


def test_identity() -> None:
    """Through JSON into a new dispatcher, which then says the same."""
    document = busy().dispatcher.snapshot()
    text = json.dumps(document)
    dispatcher = fresh()
    dispatcher.restore(json.loads(text))
    dispatcher.restore_counts(busy().dispatcher.counts())
    assert json.dumps(dispatcher.snapshot()) == text
    assert dispatcher.status() == busy().dispatcher.status()


def test_it_goes_on_where_it_was() -> None:
    """Handlers complete into the contexts that they had interrupted; what waited is delivered."""
    old = busy()
    new = Machine(4, power=False)
    new.dispatcher.restore(old.dispatcher.snapshot())
    new.regs = old.regs
    new.sctlr = old.sctlr
    new.deliveries.clear()
    for pe in (0, 0, 1):
        assert new(pe, Function.EVENT_COMPLETE, 0) is None
    assert new.deliveries == [(0, PRIVATE)]
    assert new(0, Function.EVENT_COMPLETE, 0) is None
    assert new.deliveries == [(0, PRIVATE), (0, PRIVATE_2)]
    assert new(0, Function.EVENT_ENABLE, 0) == 0
    assert new(0, Function.EVENT_COMPLETE, 0) is None
    assert new.deliveries[-1] == (0, 0)
    assert new.status(0, SHARED) == 0
    new.dispatcher.power_on(3)
    assert new(3, Function.PE_UNMASK) == 0
    assert new.deliveries[-1] == (3, SHARED_2)


def test_restore_asks_for_the_pes_that_have_something_to_do() -> None:
    """Kicks that were under way when the snapshot was taken are not lost."""
    machine = Machine(3)
    machine.hold_kicks = True
    machine.enable(2, PRIVATE)
    machine.enable(2, SHARED)
    machine.trigger(PRIVATE, 2)
    machine.trigger(SHARED, 1)
    again = Dispatcher(MachineDescription.default(), range(3))
    attention, kicks = again.attention, again.kicks
    again.restore(machine.dispatcher.snapshot())
    assert again.kicks is kicks
    assert again.attention is attention
    assert 2 in kicks
    assert all(again.attention[pe] for pe in kicks)
    again.restore(machine.dispatcher.snapshot())
    assert sorted(set(kicks)) == kicks


def test_restore_replaces_what_was_there() -> None:
    """Nothing of the old state shows through, and features are those of the document."""
    machine = busy()
    empty = Dispatcher(MachineDescription.default(), range(4)).snapshot()
    machine.dispatcher.restore(empty)
    assert machine.dispatcher.snapshot() == empty
    assert machine.dispatcher.features == CpuFeatures()
    assert not any(machine.dispatcher.attention)
    assert machine.dispatcher.kicks == []


@pytest.mark.parametrize(
    ("dispatcher", "message"),
    [
        (Dispatcher(MachineDescription.default(), range(3)), "4 PEs, this machine has 3"),
        (Dispatcher(MachineDescription.default(), range(1, 5)), "PE 0: another affinity"),
        (Dispatcher(MachineDescription.default(), range(4), client_el=2), "another client EL than EL2"),
        (Dispatcher(profile(version=(1, 0)), range(4)), "another machine description"),
        (
            Dispatcher(MachineDescription(MachineDescription.default().events[:-1]), range(4)),
            "another machine description",
        ),
    ],
)
def test_document_of_another_machine(dispatcher: Dispatcher, message: str) -> None:
    """Said, not guessed around."""
    with pytest.raises(ProtocolError, match=message):
        dispatcher.restore(DOCUMENT)


def pe_event(document: Any, pe: int, number: int) -> Any:
    """A private event's entry."""
    return next(entry for entry in document["pes"][pe]["events"] if entry["event"] == number)


def shared_event(document: Any, number: int) -> Any:
    """A shared event's entry."""
    return next(entry for entry in document["shared"] if entry["event"] == number)


def two_normal(d: Any) -> None:
    d["pes"][0]["frames"][1]["event"] = PRIVATE_2


def swapped(d: Any) -> None:
    d["pes"][0]["frames"].reverse()


def three_frames(d: Any) -> None:
    d["pes"][0]["frames"].append(d["pes"][1]["frames"][0])


def runs_twice(d: Any) -> None:
    d["pes"][2]["frames"] = d["pes"][1]["frames"]


def enabled_unregistered(d: Any) -> None:
    pe_event(d, 0, PRIVATE_2)["state"] = 2


def state_zero(d: Any) -> None:
    pe_event(d, 0, PRIVATE_2)["state"] = 0


def running_without_context(d: Any) -> None:
    pe_event(d, 0, PRIVATE_2)["state"] = 7


def context_without_running(d: Any) -> None:
    pe_event(d, 0, PRIVATE)["state"] = 3


def context_without_registration(d: Any) -> None:
    d["pes"][0]["events"].remove(pe_event(d, 0, PRIVATE))


def pending_unregistered(d: Any) -> None:
    shared_event(d, SHARED)["pending"] = True


def twice(d: Any) -> None:
    d["shared"].append(copy.deepcopy(d["shared"][0]))


def unknown_event(d: Any) -> None:
    d["shared"][0]["event"] = 0x999


def private_among_shared(d: Any) -> None:
    d["shared"][0]["event"] = PRIVATE


def unknown_target(d: Any) -> None:
    shared_event(d, SHARED_2)["target"] = 4


def runs_elsewhere_than_routed(d: Any) -> None:
    shared_event(d, SHARED)["target"] = 0


def entry_zero(d: Any) -> None:
    shared_event(d, SHARED_2)["entry"] = 0


def context_in_el3(d: Any) -> None:
    d["pes"][0]["frames"][0]["context"][1] = 0xD


def short_context(d: Any) -> None:
    d["pes"][0]["frames"][0]["context"].pop()


def huge_word(d: Any) -> None:
    d["pes"][0]["frames"][0]["context"][7] = 1 << 64


def endless_word(d: Any) -> None:
    shared_event(d, SHARED_2)["argument"] = 10**6000


def negative_word(d: Any) -> None:
    shared_event(d, SHARED_2)["argument"] = -1


def off_and_unmasked(d: Any) -> None:
    d["pes"][3]["masked"] = False


def off_with_events(d: Any) -> None:
    d["pes"][3]["events"] = d["pes"][0]["events"]


def version_true(d: Any) -> None:
    d["version"] = True


def later_version(d: Any) -> None:
    d["version"] = 4


def older_version(d: Any) -> None:
    d["version"] = 2


def bound_twice(d: Any) -> None:
    d["bound"].append([SHARED_SLOTS + 1, 34])


def slot_twice(d: Any) -> None:
    d["bound"].append([SHARED_SLOTS, 35])


def bound_of_the_other_type(d: Any) -> None:
    d["bound"].append([SHARED_SLOTS + 1, 30])


def bound_beyond_the_gic(d: Any) -> None:
    d["bound"].append([SHARED_SLOTS + 1, 1020])


def bound_to_a_fixed_event(d: Any) -> None:
    d["bound"].append([SHARED, 35])


def half_a_binding(d: Any) -> None:
    d["bound"].append([SHARED_SLOTS + 1])


def bound_text(d: Any) -> None:
    d["bound"] = "34"


def registered_but_unbound(d: Any) -> None:
    d["bound"] = []


def key_missing(d: Any) -> None:
    del d["shared"]


def key_too_many(d: Any) -> None:
    d["pes"][0]["colour"] = "red"


def feature_unknown(d: Any) -> None:
    d["features"]["sve9"] = True


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (two_normal, "cannot preempt"),
        (swapped, "cannot preempt"),
        (three_frames, "more than 2 handlers"),
        (runs_twice, "event 0x200 runs twice"),
        (enabled_unregistered, "not a state"),
        (state_zero, "not a state"),
        (running_without_context, "event 0x101: its state and the saved contexts contradict"),
        (context_without_running, "event 0x100: its state and the saved contexts contradict"),
        (context_without_registration, "event 0x100 runs without being registered"),
        (pending_unregistered, "event 0x200: pending without being registered"),
        (twice, "is there twice"),
        (unknown_event, "does not have there"),
        (private_among_shared, "does not have there"),
        (unknown_target, "routed to a PE that does not exist"),
        (runs_elsewhere_than_routed, "runs on a PE that it is not routed to"),
        (entry_zero, "not an entry point"),
        (context_in_el3, "above the client EL"),
        (short_context, "a context has 20 words, not 19"),
        (huge_word, "64-bit word"),
        (endless_word, "64-bit word"),
        (negative_word, "64-bit word"),
        (off_and_unmasked, "is off, but not without state"),
        (off_with_events, "is off, but not without state"),
        (version_true, "not a version 3 document"),
        (later_version, "not a version 3 document"),
        (older_version, "not a version 3 document"),
        (bound_twice, "interrupt 34 is there twice"),
        (slot_twice, "event 0x40ff0100 or interrupt 35 is there twice"),
        (bound_of_the_other_type, "cannot be bound to"),
        (bound_beyond_the_gic, "cannot be bound to"),
        (bound_to_a_fixed_event, "cannot be bound to"),
        (half_a_binding, "pairs of event and interrupt"),
        (bound_text, "bound: a list is missing"),
        (registered_but_unbound, "registered without a bound interrupt"),
        (key_missing, "must be an object with"),
        (key_too_many, "PE 0: must be an object with"),
        (feature_unknown, "features: must be an object with"),
    ],
)
def test_damage(damage: Any, message: str) -> None:
    """Each kind of contradiction has its reason, and the dispatcher stays what it was."""
    document = copy.deepcopy(DOCUMENT)
    damage(document)
    machine = busy()
    machine.dispatcher.kicks[:] = [2]
    with pytest.raises(ProtocolError, match=message) as caught:
        machine.dispatcher.restore(document)
    assert "\n" not in str(caught.value)
    assert machine.dispatcher.snapshot() == DOCUMENT
    assert machine.dispatcher.kicks == [2]


@pytest.mark.parametrize("document", [None, [], {}, "x", 7, {"format": "qemu-sdei sdei state"}, float("nan")])
def test_not_a_document_at_all(document: object) -> None:
    """Whatever JSON can hold."""
    with pytest.raises(ProtocolError):
        fresh().restore(document)
