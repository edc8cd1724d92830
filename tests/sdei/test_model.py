"""The dispatcher against the naive model, in random histories of private, shared, normal, critical events on 3 PEs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qemu_sdei.errors import NotDeliveredError, UsageError
from qemu_sdei.sdei import CpuFeatures, Dispatcher, EventType, Priority
from qemu_sdei.sdei.constants import Function
from qemu_sdei.sdei.context import new_regs
from qemu_sdei.sdei.interrupts import Wanted
from qemu_sdei.sdei.pstate import SCTLR_SPAN
from tests.examples import examples
from tests.sdei.machine import small_profile
from tests.sdei.model import Model

PES = 3
PROFILE = small_profile()
FIXED = [event.number for event in PROFILE.events]
SLOTS = [event.number for event in PROFILE.slot_events()]
NUMBERS = FIXED + SLOTS
INTIDS = [27, 30, 33, 34]
WORD = (1 << 64) - 1

CALLS = {
    "EVENT_COMPLETE": 8,
    "EVENT_COMPLETE_AND_RESUME": 3,
    "EVENT_SIGNAL": 5,
    "EVENT_ENABLE": 3,
    "EVENT_DISABLE": 2,
    "EVENT_REGISTER": 3,
    "EVENT_UNREGISTER": 2,
    "EVENT_ROUTING_SET": 1,
    "EVENT_GET_INFO": 1,
    "EVENT_STATUS": 1,
    "EVENT_CONTEXT": 1,
    "PE_MASK": 4,
    "PE_UNMASK": 4,
    "PRIVATE_RESET": 1,
    "SHARED_RESET": 1,
    "INTERRUPT_BIND": 3,
    "INTERRUPT_RELEASE": 2,
}
"""How often each call is made: what brings handlers to run outweighs what ends them all."""

WEIGHTED = [name for name, weight in CALLS.items() for _ in range(weight)]
SHARED_NUMBERS = [e.number for e in (*PROFILE.events, *PROFILE.slot_events()) if e.type == EventType.SHARED]
EVENTS = [*NUMBERS, *NUMBERS, *NUMBERS, 0x999, 0x8000_0000]
AFFINITIES = [0, 1, 2, 0, 1, 2, 0x8000_0001, 3, 0xFFFF_FFFF]
ENTRIES = [0x1000, 0xFFFF_8000_0000_1000, 0x1000, 0x2000, 0x3000, 0, 6, 1 << 60]

calls = st.sampled_from(WEIGHTED)
routes = st.sampled_from(["any"] * 6 + ["0", "1", "disabled", "none"])
pe_numbers = st.integers(0, PES - 1)
serving = st.lists(pe_numbers, max_size=4)
events = st.sampled_from(EVENTS)
affinities = st.sampled_from(AFFINITIES)
pstates = st.sampled_from([0x5, 0x4, 0x0, 0x8000_0010, 0x3C5, 0x9])


class AgainstModel(RuleBasedStateMachine):
    """Every step is done to both. Kicks are held back and served in any order, as interrupts would be."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = self.fresh()
        self.model = Model(
            PES,
            [
                (e.number, e.type == EventType.SHARED, e.priority == Priority.CRITICAL, e.signalable)
                for e in PROFILE.events
            ],
            [(e.number, e.type == EventType.SHARED) for e in PROFILE.slot_events()],
        )
        self.owned: dict[tuple[int, int], Wanted] = {}
        """What the GIC was told of each interrupt that is not the guest's."""
        self.regs = [new_regs() for _ in range(PES)]
        self.kicked: set[int] = set()
        self.counter = 0
        self.routes: list[str] = []

    @property
    def sctlr(self) -> int:
        """SCTLR_EL1 as it is now: guests change it, in handlers too."""
        return SCTLR_SPAN if self.model.span else 0

    @staticmethod
    def fresh() -> Dispatcher:
        """The machine's dispatcher."""
        return Dispatcher(PROFILE, range(PES), features=CpuFeatures(pan=True), max_intid=40, reserved_intids=(40,))

    @initialize(
        off=st.sampled_from([None, None, None, 0, 1, 2]),
        routes=st.lists(routes, min_size=len(NUMBERS), max_size=len(NUMBERS)),
    )
    def boot(self, off: int | None, routes: list[str]) -> None:
        """All PEs on and unmasked, except perhaps one; most events registered and enabled: a guest at work."""
        self.routes = routes
        self.bind = len(set(routes)) > 3
        for pe in range(PES):
            if pe != off:
                self.dispatcher.power_on(pe)
                self.model.pes[pe].on = True
                self.revive(pe)

    # --- one frame ---------------------------------------------------------------------------------------------------

    def step(self, pe: int, name: str, args: list[int]) -> None:
        """A call on both sides: same result, same registers, same delivery."""
        regs = self.regs[pe]
        self.counter += 1
        self.model.span = self.counter % 3 == 0
        for index in range(2, 20):
            regs[index] = self.counter << 8 | index
        for index, arg in enumerate(args, 3):
            regs[index] = arg & WORD
        mirror = regs.tolist()
        result = self.dispatcher.handlers[Function[name]](pe, regs)
        expected = self.model.call(pe, name, mirror)
        assert result == expected, name
        if result is not None:
            regs[2] = mirror[2] = result & WORD
        assert self.dispatcher.resume == self.model.resume
        if self.model.resume is not None:
            assert self.dispatcher.take_resume(regs, self.sctlr, 0) == self.model.resume
            self.model.resume = None
        self.frame(pe, mirror)

    def frame(self, pe: int, mirror: list[int]) -> None:
        """The end of a frame: delivery, or none, on both sides alike; kicks are noted."""
        regs = self.regs[pe]
        expected = self.model.dispatch(pe, mirror)
        event = self.dispatcher.dispatch(pe, regs, self.sctlr, 0) if self.dispatcher.attention[pe] else None
        assert event == expected
        assert regs.tolist() == mirror
        self.kicked.discard(pe)
        self.collect(pe)

    def collect(self, caller: int | None) -> None:
        """Kicks go to PEs other than the caller, and only to where something is deliverable or was until now."""
        for pe in self.dispatcher.kicks:
            assert pe != caller
            self.kicked.add(pe)
        self.dispatcher.kicks.clear()
        for claim in self.dispatcher.interrupts:
            self.owned[claim] = self.dispatcher.wanted(*claim)
        self.dispatcher.interrupts.clear()

    # --- what the guest does -----------------------------------------------------------------------------------------

    @precondition(lambda self: any(pe.on for pe in self.model.pes))
    @rule(data=st.data(), name=calls, event=events, affinity=affinities)
    def guest(self, data: st.DataObject, name: str, event: int, affinity: int) -> None:
        """One call, by a PE that is on and runs at EL1 (a handler may have returned it to another mode)."""
        self.one_call(name, event, affinity, lambda options: data.draw(st.sampled_from(options)))

    @precondition(lambda self: any(pe.on for pe in self.model.pes))
    @rule(seed=st.integers(0, 1 << 32))
    def busy_guest(self, seed: int) -> None:
        """A dozen calls in a row, from one number: drawing each of them costs more than all that is tested."""
        generator = random.Random(seed)
        serve = generator.choice((0.2, 0.6, 0.9))
        for _ in range(12):
            if generator.random() < 0.2:
                number = generator.choice(NUMBERS)
                self.inject(number, generator.randrange(PES))
            elif generator.random() < 0.2:
                self.fire(generator.choice(INTIDS), generator.randrange(PES), generator.random() < 0.1)
            else:
                name = generator.choice(WEIGHTED)
                event = generator.choice(EVENTS if name != "EVENT_ROUTING_SET" else SHARED_NUMBERS)
                self.one_call(name, event, generator.choice(AFFINITIES), generator.choice)
            self.nothing_is_forgotten()
            for pe in sorted(self.kicked):
                if generator.random() < serve and self.model.pes[pe].on:
                    self.regs[pe][1] = 5
                    self.frame(pe, self.regs[pe].tolist())

    def one_call(self, name: str, event: int, affinity: int, choose: Callable[[Sequence[Any]], Any]) -> None:
        """One call with arguments that make sense, mostly; `choose` picks one of several."""
        pe = choose([index for index, pe in enumerate(self.model.pes) if pe.on])
        self.regs[pe][1] = 5
        stack = self.model.pes[pe].stack
        if stack and name in ("EVENT_DISABLE", "EVENT_ENABLE", "EVENT_UNREGISTER") and choose((True, False)):
            event = stack[-1][0].number  # a handler's calls are mostly about its own event
        args = [event]
        if name == "EVENT_REGISTER":
            args += [choose(ENTRIES), 0xA000 + event, choose((0, 0, 1, 1, 2)), affinity]
        elif name == "EVENT_ROUTING_SET":
            args += [choose((0, 1, 1, 2)), affinity]
        elif name == "EVENT_COMPLETE_AND_RESUME":
            args = [choose(ENTRIES)]
        elif name == "EVENT_SIGNAL":
            args = [0 if event > 0x100 else event, affinity]
        elif name == "EVENT_GET_INFO":
            args += [choose(range(6))]
        elif name == "INTERRUPT_BIND":
            args = [choose((*INTIDS, *INTIDS, 28, 35, 15, 16, 40, 41, 0xFFFF_FFFF))]
        elif name == "INTERRUPT_RELEASE":
            args = [choose((*SLOTS, event))]
        elif name == "EVENT_CONTEXT":
            args = [choose(range(21))]
        self.step(pe, name, args)

    @precondition(lambda self: any(pe.on for pe in self.model.pes))
    @rule(data=st.data(), pstate=pstates)
    def run_elsewhere(self, data: st.DataObject, pstate: int) -> None:
        """The guest goes on in another mode, EL2 included, and something posts a frame."""
        pe = data.draw(st.sampled_from([index for index, pe in enumerate(self.model.pes) if pe.on]))
        self.regs[pe][1] = pstate
        self.frame(pe, self.regs[pe].tolist())
        self.regs[pe][1] = 5
        self.frame(pe, self.regs[pe].tolist())

    def revive(self, pe: int) -> None:
        """What a kernel does with a CPU that comes up: register, enable, unmask."""
        self.regs[pe][1] = 5
        if self.bind:
            for intid in INTIDS:
                self.step(pe, "INTERRUPT_BIND", [intid])
        for number, route in zip(NUMBERS, self.routes, strict=True):
            if route != "none":
                target = int(route) if route.isdigit() else 0
                self.step(pe, "EVENT_REGISTER", [number, 0x1000 + 4 * number, pe, int(route.isdigit()), target])
            if route not in ("none", "disabled"):
                self.step(pe, "EVENT_ENABLE", [number])
        self.step(pe, "PE_UNMASK", [0])

    # --- what the host and the machine do ----------------------------------------------------------------------------

    @rule(triggers=st.lists(st.tuples(st.sampled_from(NUMBERS), pe_numbers), min_size=1, max_size=6), serve=serving)
    def host(self, triggers: list[tuple[int, int]], serve: list[int]) -> None:
        """Injections; then some of the interrupted PEs post their frames, in some order."""
        for number, pe in triggers:
            self.inject(number, pe)
            self.nothing_is_forgotten()
        for pe in serve:
            if pe in self.kicked and self.model.pes[pe].on:
                self.regs[pe][1] = 5
                self.frame(pe, self.regs[pe].tolist())
                self.nothing_is_forgotten()

    def inject(self, number: int, pe: int) -> None:
        """One injection: the same outcome on both sides."""
        expected = self.model.trigger(number, pe)
        try:
            outcome = self.dispatcher.trigger(number, pe).name
        except (NotDeliveredError, UsageError):  # the latter for a free slot, which is no event
            outcome = "REFUSED"
        assert outcome == expected
        self.collect(None)

    @precondition(lambda self: any(pe.on for pe in self.model.pes))
    @rule(intid=st.sampled_from(INTIDS), pe=pe_numbers, late=st.booleans())
    def device(self, intid: int, pe: int, late: bool) -> None:
        """An interrupt."""
        self.fire(intid, pe, late)

    def fire(self, intid: int, pe: int, late: bool) -> None:
        """An interrupt, where the GIC listens to it: that is known from what the owner was told, and from nowhere else.
        A late one was acknowledged before the GIC was told.
        """
        claim = (intid, pe if intid < 32 else -1)
        if intid < 32 and not self.model.pes[pe].on:
            return
        told = self.owned.get(claim, Wanted.FREE)
        if told != Wanted.LISTEN and not late:
            return
        assert self.dispatcher.interrupt(intid, pe) == self.model.fire(intid, pe)
        if told != Wanted.FREE:
            self.owned[claim] = Wanted.HOLD
        self.collect(pe)
        if self.model.pes[pe].on:
            self.regs[pe][1] = 5
            self.frame(pe, self.regs[pe].tolist())

    @rule(
        pe=pe_numbers,
        how=st.sampled_from(["document", "document", "on", "off", "suspend", "revive", "revive", "reset"]),
    )
    def machine(self, pe: int, how: str) -> None:
        """CPU_ON, CPU_OFF, wake-up from a suspend, a snapshot, seldom a system reset."""
        if how == "document":
            self.through_a_document()
        elif how == "suspend":
            if self.model.pes[pe].on:
                self.dispatcher.suspended(pe)
                self.model.pes[pe].masked = True
        elif how == "reset":
            self.dispatcher.reset()
            self.model.reset()
            self.owned.clear()
            self.kicked.clear()
        elif how == "revive" and self.model.pes[pe].on:
            self.revive(pe)
        else:
            self.model.power_off(pe)
            self.dispatcher.power_off(pe)
            self.kicked.discard(pe)
            self.collect(pe)
            if how != "off":
                self.dispatcher.power_on(pe)
                self.model.pes[pe].on = True
                self.revive(pe)
        self.collect(pe)

    def through_a_document(self) -> None:
        """Snapshot, JSON, a new dispatcher: the identity. Kicks that are under way are asked for anew."""
        document = self.dispatcher.snapshot()
        again = self.fresh()
        again.restore(json.loads(json.dumps(document)))
        assert again.snapshot() == document
        again.restore_counts(json.loads(json.dumps(self.dispatcher.counts())))
        assert again.counts() == self.dispatcher.counts()
        self.dispatcher = again
        self.kicked.clear()
        self.collect(None)

    # --- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def same_state(self) -> None:
        """Status, pending, mask, power and nesting of everything."""
        status = self.dispatcher.status()
        for pe, (seen, model) in enumerate(zip(status["pes"], self.model.pes, strict=True)):
            assert (seen["on"], seen["masked"]) == (model.on, model.masked)
            assert seen["running"] == [event.number for event, _ in model.stack] == list(self.dispatcher.running(pe))
        for entry in status["events"]:
            for seen in entry["instances"]:
                event = self.model.event(seen["pe"] or 0, entry["event"])
                assert event is not None
                assert seen["registered"] + 2 * seen["enabled"] + 4 * seen["running"] == event.status
                assert seen["pending"] == event.pending
                counts = seen["triggers"]
                rest = counts["merged"] + counts["dropped"] + counts["delivered"]
                assert counts["accepted"] == rest + event.pending, f"{entry['event']:#x}: {counts}"

    @invariant()
    def the_gic_is_told(self) -> None:
        """What is not registered is the guest's; what is registered and waits for nothing is listened to."""
        for intid in INTIDS:
            for pe in range(PES):
                told = self.owned.get((intid, pe if intid < 32 else -1), Wanted.FREE)
                slot = next((s for s, bound in self.model.bindings.items() if bound == intid), None)
                event = None if slot is None else self.model.event(pe, slot)
                status = 0 if event is None else event.status
                assert (told == Wanted.FREE) == (status == 0), f"interrupt {intid} on PE {pe}: {told}, status {status}"
                busy = event is not None and (event.pending or event.running_on is not None)
                wanted = Wanted.FREE if status == 0 else Wanted.HOLD if busy else Wanted.LISTEN
                assert self.dispatcher.wanted(intid, pe) == wanted
                if told == Wanted.HOLD:
                    assert event is not None
                    assert event.pending or event.running_on is not None, "nobody will listen to it again"
        found = dict(self.dispatcher.snapshot()["bound"])
        assert found == dict.fromkeys(self.model.known, 0) | self.model.bindings

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """What is deliverable has a PE that was interrupted for it, and that PE's attention is not 0."""
        for pe in range(PES):
            if self.model.candidates(pe):
                assert self.dispatcher.attention[pe], "attention is 0 where something is deliverable"
        for events_of in (*self.model.private, self.model.shared):
            for event in events_of.values():
                able = [pe for pe in range(PES) if self.model.deliverable(event, pe)]
                assert not able or self.kicked & set(able), f"nobody was asked to take {event.number:#x}"

    @invariant()
    def reasons_are_given(self) -> None:
        """`why_pending` has a sentence exactly for what waits for something."""
        for pe in range(PES):
            for number in NUMBERS:
                event = self.model.event(pe, number)
                assert event is not None
                if event.slot and number not in self.model.bindings:
                    continue
                why = self.dispatcher.why_pending(number, pe)
                if event.pending and why is None:
                    assert any(self.model.deliverable(event, other) for other in range(PES))
                if event.pending and not event.enabled:
                    assert why is not None
                    assert "disabled" in why


AgainstModel.TestCase.settings = settings(
    max_examples=examples(60, 200),
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestAgainstModel = AgainstModel.TestCase
