"""Bound interrupts at the GIC: what is taken over and given back, by whom, in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from qemu_sdei.sdei.constants import PRIVATE_SLOTS, SHARED_SLOTS, Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.simulated import serve
from tests.backend.simulated_gic import SimulatedGic
from tests.backend.test_crash import World, _Kill

TIMER = 27
ALARM = 34
P = PRIVATE_SLOTS
S = SHARED_SLOTS
DENIED = (1 << 64) - 3
INVALID = (1 << 64) - 2
PENDING = (1 << 64) - 5
HANDLER = 0x4300_0000
CPU_ON = Psci.CPU_ON | 0x4000_0000


class BoundWorld(World):
    """A guest with a GIC."""

    def __init__(self, directory: Path, kill: _Kill | None = None) -> None:
        super().__init__(directory, kill or _Kill(-1))
        self.gic = SimulatedGic(self.guest.nr_cpus)
        self.guest.window.execute = self.gic.execute

    def step(self, pe: int) -> list[int]:
        """Have the frame of `pe` answered and the answer's operations done; no more."""
        self.do(serve)
        serve(self.server)
        answer = self.guest.take(pe)
        self.gic.execute(self.guest.window.frames[pe], pe)
        return answer

    def exchange(self, pe: int) -> list[int]:
        """All of an exchange."""
        answer = self.step(pe)
        while answer[0] & AnswerFlag.REPOST:
            self.guest.post(pe, Kind.OPS)
            answer = self.step(pe)
        self.seen.append((pe, answer))
        return answer

    def x0(self, pe: int, function: int, *arguments: int) -> int:
        """Result of a call."""
        self.call(pe, function, *arguments)
        return int(self.seen[-1][1][3])

    def interrupt(self, intid: int, pe: int) -> bool:
        """The device asserts the line. Whether the firmware took it."""
        if not self.gic.take(intid, pe):
            return False
        frame = self.guest.window.frames[pe]
        frame[Word.VECTOR] = intid
        self.guest.post(pe, Kind.INTERRUPT)
        self.exchange(pe)
        return True

    def boot(self) -> None:
        """Both CPUs on and unmasked, the timer bound to P, the alarm to S."""
        for pe in (0, 1):
            self.guest.reset(pe)
            self.exchange(pe)
        self.call(0, CPU_ON, 1, 0x4100_0000, 5)
        self.kicks()
        self.gic.set_up(1)
        for pe in (0, 1):
            self.call(pe, Function.PE_UNMASK)
        assert self.x0(0, Function.INTERRUPT_BIND, TIMER) == P
        assert self.x0(0, Function.INTERRUPT_BIND, ALARM) == S

    def kicks(self) -> None:
        """Kicked CPUs post their frames; those that change something are seen."""
        for pe in self.guest.take_kicks():
            before = self.guest.window.contexts[pe].tolist()
            self.guest.post(pe, Kind.KICK)
            answer = self.exchange(pe)
            if answer[1:] == before:
                self.seen.pop()

    def enable(self, pe: int, event: int, *route: int) -> None:
        """Register and enable."""
        assert self.x0(pe, Function.EVENT_REGISTER, event, HANDLER, pe, *(route or (0, 0))) == 0
        assert self.x0(pe, Function.EVENT_ENABLE, event) == 0

    def in_handler(self, pe: int, event: int) -> bool:
        """The answer that `pe` took last is the start of a handler."""
        context = self.guest.window.contexts[pe]
        return bool(context[0] == HANDLER and context[2] == event)


@pytest.fixture
def world(tmp_path: Path) -> BoundWorld:
    world = BoundWorld(tmp_path)
    world.boot()
    return world


@pytest.mark.parametrize(("event", "intid", "owner"), [(P, TIMER, 1), (S, ALARM, -1), (S, ALARM + 1, -1)])
def test_taken_over_and_given_back_exactly(world: BoundWorld, event: int, intid: int, owner: int) -> None:
    """Priority, enable and group are what they were; no other interrupt is touched, the doorbell's least of all."""
    if intid == ALARM + 1:
        event = world.x0(0, Function.INTERRUPT_BIND, intid)
    before = world.gic.states()
    line = world.gic.lines[intid, owner]
    line.pending = True
    world.enable(1, event)
    assert (line.group0, line.enabled, line.pending) == (True, True, False)
    assert line.priority < 0x80, "above all that is Non-secure"
    changed = {claim for claim, state in world.gic.states().items() if state != before[claim]}
    assert changed == {(intid, owner)}
    assert world.x0(1, Function.EVENT_UNREGISTER, event) == 0
    assert world.gic.states() == before


@pytest.mark.parametrize(("event", "intid", "owner"), [(P, TIMER, 1), (S, ALARM, -1)])
def test_one_handler_for_each_interrupt(world: BoundWorld, event: int, intid: int, owner: int) -> None:
    """It stays quiet from when it fired until its handler has completed, and it is ended at the GIC."""
    world.enable(1, event)
    line = world.gic.lines[intid, owner]
    for _ in range(3):
        assert world.interrupt(intid, 1)
        assert world.in_handler(1, event)
        assert (line.enabled, line.active) == (False, False)
        assert not world.interrupt(intid, 1), "quiet"
        line.pending = False
        world.call(1, Function.EVENT_COMPLETE, 0)
        assert line.enabled
        assert not world.in_handler(1, event)


def test_unregister_in_the_handler(world: BoundWorld) -> None:
    """Given back when the handler has completed, not before."""
    before = world.gic.states()
    for event, intid in ((P, TIMER), (S, ALARM)):
        world.enable(1, event)
        assert world.interrupt(intid, 1)
        assert world.x0(1, Function.EVENT_UNREGISTER, event) == PENDING
        line = world.gic.lines[intid, 1 if event == P else -1]
        assert (line.group0, line.enabled) == (True, False)
        world.call(1, Function.EVENT_COMPLETE, 0)
        assert world.gic.states() == before


def test_an_spi_reaches_the_cpu_that_it_is_routed_to(world: BoundWorld) -> None:
    """Taken on one CPU, handled on the other; also when the one that takes it is off."""
    world.enable(0, S, 1, 0)
    assert world.interrupt(ALARM, 1)
    assert not world.in_handler(1, S)
    world.kicks()
    assert world.in_handler(0, S)
    world.call(0, Function.EVENT_COMPLETE, 0)
    world.call(1, Psci.CPU_OFF)
    assert world.guest.parked[1]
    assert world.interrupt(ALARM, 1)
    assert world.guest.parked[1], "it parks again"
    world.kicks()
    assert world.in_handler(0, S)
    assert not world.gic.lines[ALARM, -1].active


def test_an_interrupt_that_the_guest_handles_just_now(world: BoundWorld) -> None:
    """Registering it is denied, as by TF-A: its end would never come to the GIC."""
    before = world.gic.states()
    world.gic.lines[ALARM, -1].active = True
    assert world.x0(0, Function.EVENT_REGISTER, S, HANDLER, 0, 0, 0) == DENIED
    assert world.gic.states() == before
    assert world.x0(0, Function.EVENT_STATUS, S) == 0
    world.gic.lines[ALARM, -1].active = False
    assert world.x0(0, Function.EVENT_REGISTER, S, HANDLER, 0, 0, 0) == 0


def test_resets_and_power_give_back(world: BoundWorld) -> None:
    """PRIVATE_RESET, SHARED_RESET of many, CPU_OFF out of a handler."""
    before = world.gic.states()
    spis = [world.x0(0, Function.INTERRUPT_BIND, 50 + n) for n in range(7)]
    ppis = [P, *(world.x0(0, Function.INTERRUPT_BIND, 20 + n) for n in range(3))]
    for event in (S, *spis):
        world.enable(0, event)
    for event in ppis:
        world.enable(1, event)
    assert world.x0(1, Function.PRIVATE_RESET) == 0
    assert world.x0(1, Function.SHARED_RESET) == 0
    assert world.gic.states() == before
    assert world.x0(0, Function.INTERRUPT_BIND, TIMER) == P
    for event, intid in ((P, TIMER), *((world.x0(0, Function.INTERRUPT_BIND, 20 + n), 20 + n) for n in range(3))):
        world.enable(1, event)
        assert intid == TIMER or world.gic.lines[intid, 1].group0
    assert world.interrupt(TIMER, 1)
    world.call(1, Psci.CPU_OFF)
    assert world.guest.parked[1]
    assert world.gic.states() == before
    world.call(0, CPU_ON, 1, 0x4100_0000, 5)
    world.kicks()
    assert world.guest.window.contexts[1][0] == 0x4100_0000
    world.call(1, Function.PE_UNMASK)
    world.enable(1, P)
    assert world.interrupt(TIMER, 1)


def test_complete_and_resume(world: BoundWorld) -> None:
    """ELR, SPSR and the GIC in one answer."""
    world.enable(1, P)
    assert world.interrupt(TIMER, 1)
    world.call(1, Function.EVENT_COMPLETE_AND_RESUME, 0x4400_0280)
    assert world.guest.window.contexts[1][0] == 0x4400_0280
    assert world.gic.lines[TIMER, 1].enabled
    assert world.guest.window.frames[1][Word.FLAGS] >> 8 & 0xFF == 3


def test_a_call_waits_for_what_another_cpu_is_doing(world: BoundWorld) -> None:
    """CPU 1 completes; before its operations are done CPU 0 unregisters: they must not come after CPU 0's."""
    before = world.gic.states()
    world.enable(1, S, 1, 1)
    assert world.interrupt(ALARM, 1)
    world.guest.smc(1, Function.EVENT_COMPLETE, 0)
    serve(world.server)  # answered, but CPU 1 has not come to it yet
    assert world.x0(0, Function.EVENT_STATUS, S) == 7, "not complete before the GIC knows it"
    world.guest.smc(0, Function.EVENT_UNREGISTER, S)
    for _ in range(5):
        assert world.step(0)[0] & AnswerFlag.REPOST, "waits"
        world.guest.post(0, Kind.OPS)
    world.server = world._start()  # even across a crash
    serve(world.server)
    world.guest.take(1)
    world.gic.execute(world.guest.window.frames[1], 1)
    world.guest.post(1, Kind.OPS)
    serve(world.server)
    world.guest.take(1)
    world.gic.execute(world.guest.window.frames[1], 1)
    world.guest.post(1, Kind.OPS)
    assert not world.exchange(1)[0] & AnswerFlag.REPOST
    answer = world.exchange(0)
    assert answer[3] == 0
    assert world.gic.states() == before
    assert world.x0(0, Function.EVENT_STATUS, S) == 0


def test_unregistered_between_the_halves_of_taking_over(world: BoundWorld) -> None:
    """CPU 1 looks at the GIC when CPU 0 unregisters the event again: it must not stay the firmware's."""
    before = world.gic.states()
    world.guest.smc(1, Function.EVENT_REGISTER, S, HANDLER, 1, 0, 0)
    assert world.step(1)[0] & AnswerFlag.REPOST
    world.guest.smc(0, Function.EVENT_UNREGISTER, S)
    assert world.step(0)[0] & AnswerFlag.REPOST
    world.guest.post(1, Kind.OPS)
    world.exchange(1)
    world.guest.post(0, Kind.OPS)
    assert world.exchange(0)[3] == 0
    assert world.gic.states() == before


def test_an_interrupt_taken_just_when_its_event_is_unregistered(world: BoundWorld) -> None:
    """It is ended and is no mistake; one that is nobody's is."""
    world.enable(0, S)
    assert world.gic.take(ALARM, 1)
    assert world.x0(0, Function.EVENT_UNREGISTER, S) == 0
    frame = world.guest.window.frames[1]
    frame[Word.VECTOR] = ALARM
    world.guest.post(1, Kind.INTERRUPT)
    world.exchange(1)
    assert not world.gic.lines[ALARM, -1].active
    assert world.server.log.rejected == 0
    frame[Word.VECTOR] = 99
    world.guest.post(1, Kind.INTERRUPT)
    world.exchange(1)
    assert world.server.log.rejected == 1


def test_a_reset_of_the_machine_forgets(world: BoundWorld) -> None:
    """The GIC is as new, bindings are gone, an exchange that was under way is void."""
    world.enable(0, S)
    world.guest.smc(1, Function.EVENT_REGISTER, P, HANDLER, 1, 0, 0)
    assert world.step(1)[0] & AnswerFlag.REPOST
    for pe in (0, 1):
        world.guest.reset(pe)
        world.gic = SimulatedGic(2)
        world.exchange(pe)
    assert world.server.firmware.snapshot()["gic"]["owned"] == []
    assert world.x0(0, Function.EVENT_REGISTER, S, HANDLER, 0, 0, 0) == INVALID
