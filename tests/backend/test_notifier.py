"""Aborts and interrupts that the firmware has the guest notice: when they are made, refused, given up, and that a
backend that dies in the middle changes nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from qemu_sdei.backend.control import state_document
from qemu_sdei.backend.loop.notifications import Outcome
from qemu_sdei.backend.loop.notifier import FOREVER_MS, LIMIT
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.boot.area import AcpiArea
from qemu_sdei.errors import NotDeliveredError, ProtocolError, UsageError
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Op, SysReg, Word
from qemu_sdei.ras.source import Notify, Source, numbered
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.controlled import HANDLER, Backend, Peer
from tests.backend.handed_over import destination, machine, taken
from tests.backend.simulated import COUNTER_NS, RAM_BASE, SimulatedGuest, records, serve
from tests.backend.test_crash import World, _Kill
from tests.backend.test_error_sources import Ram, b64, error, place

VBAR, PC, X5 = 0xFFFF_8000_0801_0800, 0xAAAA_1000, 0x1234_5678
GICD = 0x0800_0000
SPI = 100


class Machine:
    """What is behind the micro-operations: registers that keep what is written, and a distributor's SPIs."""

    def __init__(self) -> None:
        self.registers: dict[int, int] = {SysReg.VBAR_EL1: VBAR}
        self.enabled = {SPI}
        self.pending: list[int] = []

    def do(self, frame: memoryview) -> None:
        for n in range(frame[Word.FLAGS] >> 8 & 0xFF):
            at = Word.OPS + 3 * n
            code, argument, value = frame[at] & 0xFF, frame[at + 1], frame[at + 2]
            if code == Op.READ_SYSREG:
                frame[at + 2] = self.registers.get(argument, 0)
            elif code == Op.WRITE_SYSREG:
                self.registers[argument] = value
            elif code == Op.READ_PHYS:
                frame[at + 2] = self._read(argument - GICD)
            elif argument - GICD in range(0x200, 0x280):
                first = 8 * (argument - GICD - 0x200)
                self.pending += [first + bit for bit in range(32) if value >> bit & 1]

    def _read(self, offset: int) -> int:
        if offset == 0:
            return 0x37
        if 0x80 <= offset < 0x100:
            return 0xFFFF_FFFF
        first = 8 * (offset - 0x100)
        return sum(1 << intid - first for intid in self.enabled if first <= intid < first + 32)


def come(guest: SimulatedGuest, machine: Machine, answer: Callable[[], object], pstate: int, pe: int = 0) -> list[int]:
    """A vCPU that was kicked comes from this PSTATE, and does what it is asked for until it goes on. Returns that."""
    frame = guest.window.frames[pe]
    frame[Word.PC], frame[Word.PSTATE], frame[Word.SCTLR_EL1], frame[Word.X0 + 5] = PC, pstate, 1, X5
    guest.post(pe, Kind.KICK)
    return go_on(guest, machine, answer, pe)


def go_on(guest: SimulatedGuest, machine: Machine, answer: Callable[[], object], pe: int) -> list[int]:
    """The frame that it has posted is answered, and it does what it is asked for until it goes on."""
    while True:
        answer()
        found = guest.take(pe)
        machine.do(guest.window.frames[pe])
        if not found[0] & AnswerFlag.REPOST:
            return found
        guest.post(pe, Kind.OPS)


class Asked:
    """A backend with one vCPU on, and what its notifications came to."""

    def __init__(self, directory: Path) -> None:
        self.backend = Backend(directory)
        self.backend.boot()
        self.server = self.backend.server
        self.guest = self.backend.guest
        self.machine = Machine()
        self.outcomes: list[Outcome] = []

    def come(self, pstate: int = 0, pe: int = 0) -> list[int]:
        assert pe in self.guest.take_kicks()
        found = come(self.guest, self.machine, lambda: serve(self.server), pstate, pe)
        self.server.notifier.tick()
        return found

    def answered(self, pe: int) -> list[int]:
        """What a vCPU has posted is answered."""
        return go_on(self.guest, self.machine, lambda: serve(self.server), pe)

    def later(self, seconds: float) -> None:
        """Time passes, in which the loop looks now and then."""
        for _ in range(int(seconds / 0.09) + 1):
            self.guest.counter += int(0.09e9) // COUNTER_NS
            self.server.notifier.tick()


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


# ---- aborts


def test_a_vcpu_at_el0_goes_on_in_its_abort_vector(asked: Asked) -> None:
    asked.server.notifier.sea(0, address=0x7000, then=asked.outcomes.append)
    _, pc, pstate, *x = asked.come(pstate=0x6000_0000)
    assert (pc, pstate, x[5]) == (VBAR + 0x400, 0x6000_03C5, X5)
    registers = asked.machine.registers
    assert (registers[SysReg.ELR_EL1], registers[SysReg.SPSR_EL1]) == (PC, 0x6000_0000)
    assert (registers[SysReg.ESR_EL1], registers[SysReg.FAR_EL1]) == (0x9200_0010, 0x7000)
    assert asked.outcomes == [Outcome(True, 0, None, PC, 0x6000_0000)]
    assert asked.server.notifier.tick() == FOREVER_MS
    (record,) = [r for r in records(asked.server) if r["type"] == "notification"]
    assert (record["kind"], record["outcome"], record["elr"], record["address"]) == ("abort", "made", PC, 0x7000)


def test_it_waits_for_a_moment_and_nothing_changes_until_then(asked: Asked) -> None:
    asked.server.notifier.sea(None, kernel=True, then=asked.outcomes.append)
    for _ in range(3):
        flags, pc, pstate, *x = asked.come(pstate=0x3C5)
        assert (flags, pc, pstate, x[5]) == (0, PC, 0x3C5, X5)
        asked.later(0.01)  # it is kicked again
    assert SysReg.ESR_EL1 not in asked.machine.registers
    assert asked.come(pstate=0x5)[1] == VBAR + 0x200
    assert [outcome.made for outcome in asked.outcomes] == [True]


def test_what_finds_no_moment_is_given_up_with_the_reason(asked: Asked) -> None:
    asked.server.notifier.sea(None, then=asked.outcomes.append)
    asked.come(pstate=0x5)
    asked.later(LIMIT + 1)
    (outcome,) = asked.outcomes
    assert outcome.made is False
    assert outcome.why is not None
    assert "looked 1 times" in outcome.why
    assert "vCPU 0: it is in the kernel (EL1)" in outcome.why
    asked.guest.take_kicks()
    assert come(asked.guest, asked.machine, lambda: serve(asked.server), 0)[1] == PC  # it comes too late


def test_an_event_that_is_due_interrupts_the_abort_and_neither_is_lost(asked: Asked) -> None:
    asked.backend.enable(0)
    asked.server.notifier.sea(0)
    asked.server.trigger(0, 0)
    assert asked.come()[1] == HANDLER
    assert asked.machine.registers[SysReg.ELR_EL1] == PC
    assert asked.backend.call(0, Function.EVENT_COMPLETE, 0)[1] == VBAR + 0x400


def test_in_an_sdei_handler_it_waits(asked: Asked) -> None:
    asked.backend.enable(0)
    asked.server.trigger(0, 0)
    asked.backend.kick()
    asked.server.notifier.sea(0, kernel=True)
    assert asked.come(pstate=0x5)[1] == PC
    asked.backend.call(0, Function.EVENT_COMPLETE, 0)
    asked.later(0.01)
    assert asked.come(pstate=0)[1] == VBAR + 0x400


def test_one_that_is_off_or_not_there_is_refused(asked: Asked) -> None:
    notifications = asked.server.notifier
    with pytest.raises(NotDeliveredError, match="vCPU 1 is off"):
        notifications.sea(1)
    with pytest.raises(UsageError, match="no vCPU 2: this guest has 0 to 1"):
        notifications.sea(2)
    assert notifications.why_no_sea(1) == "vCPU 1 is off"
    assert notifications.why_no_sea(None) is None
    assert asked.guest.take_kicks() == []


def test_one_that_sleeps_in_the_monitor_is_not_woken_for_an_abort(asked: Asked) -> None:
    asked.backend.call(0, Psci.CPU_SUSPEND, 0, 0, 0)
    frame = asked.guest.window.frames[0]
    frame[Word.DONE] = frame[Word.DONE] - 1  # it has the answer, and waits for an interrupt before it goes on
    asked.server.notifier.sea(None, then=asked.outcomes.append)
    asked.later(LIMIT + 1)
    assert asked.guest.take_kicks() == []
    assert "no vCPU came" in str(asked.outcomes[0].why)


def test_a_reset_forgets_it(asked: Asked) -> None:
    asked.server.notifier.sea(None, then=asked.outcomes.append)
    asked.backend.boot()
    asked.server.notifier.tick()
    assert [(outcome.made, outcome.why) for outcome in asked.outcomes] == [(False, "the machine was reset")]
    assert not asked.server.firmware.notices.waiting


def test_while_the_guest_is_paused_the_limit_does_not_run(asked: Asked) -> None:
    asked.server.notifier.sea(None, then=asked.outcomes.append)
    asked.guest.counter += 3600 * 10**9 // COUNTER_NS
    asked.server.notifier.tick()
    assert asked.outcomes == []


def test_a_forged_result_for_which_nothing_waits_is_a_kick(asked: Asked) -> None:
    frame = asked.guest.window.frames[0]
    for mark in (0xB1, 0xB2):
        frame[Word.X0], frame[Word.PC] = 0x77, PC
        frame[Word.OPS] = mark << 8 | Op.READ_SYSREG
        asked.guest.post(0, Kind.OPS)
        serve(asked.server)
        flags, pc, _, x0, *_ = asked.guest.take(0)
        assert (flags, pc, x0) == (0, PC, 0x77)


# ---- interrupts


def test_an_interrupt_that_is_enabled_becomes_pending(asked: Asked) -> None:
    asked.server.notifier.interrupt(SPI, then=asked.outcomes.append)
    flags, pc, pstate, *x = asked.come(pstate=0x3C5)
    assert (flags & 0xFF, pc, pstate, x[5]) == (0, PC, 0x3C5, X5)
    assert asked.machine.pending == [SPI]
    assert asked.outcomes == [Outcome(True, 0)]


def test_one_that_is_not_enabled_is_refused(asked: Asked) -> None:
    asked.machine.enabled.clear()
    asked.server.notifier.interrupt(SPI, then=asked.outcomes.append)
    asked.come()
    assert asked.machine.pending == []
    assert asked.outcomes == [
        Outcome(False, 0, "the guest has not enabled interrupt 100: no driver of its own listens")
    ]


def test_a_look_makes_nothing_pending(asked: Asked) -> None:
    asked.server.notifier.look(SPI, asked.outcomes.append)
    asked.come()
    assert asked.machine.pending == []
    assert asked.outcomes == [Outcome(True, 0)]


def test_an_interrupt_does_not_wait_for_an_abort(asked: Asked) -> None:
    asked.server.notifier.sea(None)
    asked.server.notifier.interrupt(SPI)
    asked.come(pstate=0x3C5)
    assert asked.machine.pending == [SPI]
    asked.later(0.01)
    assert asked.come(pstate=0)[1] == VBAR + 0x400


@pytest.mark.parametrize(
    ("intid", "why"),
    [(31, "not an SPI"), (288, "not an SPI"), (33, "UART"), (40, "doorbell"), (50, "virtio"), (150, "platform bus")],
)
def test_what_belongs_to_a_device_is_refused(asked: Asked, intid: int, why: str) -> None:
    with pytest.raises(UsageError, match=f"{why}.*take one of"):
        asked.server.notifier.interrupt(intid)


def test_one_that_is_bound_to_an_event_is_refused(asked: Asked) -> None:
    asked.backend.call(0, Function.INTERRUPT_BIND, SPI)
    with pytest.raises(NotDeliveredError, match="bound to an SDEI event"):
        asked.server.notifier.interrupt(SPI)


# ---- by the control socket


def test_requests_are_answered_when_it_is_known(asked: Asked) -> None:
    peer = Peer(asked.backend)
    peer.send(b'{"id": 1, "cmd": "abort", "vcpu": 0}\n{"id": 2, "cmd": "interrupt", "intid": 101}\n')
    assert peer.lines() == []
    asked.come(pstate=0x5)
    asked.later(0.01)
    asked.come(pstate=0)
    first, second = peer.lines()
    assert (first["id"], first["error"]["kind"]) == (2, "state")
    assert (second["id"], second["result"]) == (1, {"vcpu": 0, "pc": PC, "pstate": 0, "el": 0})
    assert peer.error(cmd="abort", vcpu=7)[0] == "usage"
    assert peer.error(cmd="abort", address="x")[0] == "usage"
    assert peer.error(cmd="interrupt", intid=40)[0] == "usage"


# ---- what survives


def test_what_waits_is_in_the_state_document_and_is_made_by_the_backend_that_takes_it(
    asked: Asked, tmp_path_factory: pytest.TempPathFactory
) -> None:
    asked.server.notifier.sea(0, address=0x7000)
    document = taken(asked.server)
    assert document["firmware"]["notices"] == [[1, 1, 0, 0x7000, 1]]
    other = SimulatedGuest(2, tmp_path_factory.mktemp("other"))
    second = other.server()
    second.guest.machine = machine(2)
    state_document.restore(second, document)
    assert other.take_kicks()[0] == 0
    there = Machine()
    assert come(other, there, lambda: serve(second), 0)[1] == VBAR + 0x400
    assert there.registers[SysReg.FAR_EL1] == 0x7000


@pytest.mark.parametrize(
    "notices",
    [7, [[1, 1, 0, 0]], [[0, 1, 0, 0, 0]], [[1, 4, 0, 0, 0]], [[1, 1, 2, 0, 0]], [[1, 2, -1, 31, 0]],
     [[1, 1, 0, 1 << 64, 0]], [[1, 1, 0, 0, 8]], [[1, 1, 0, 0, 0]] * 2, [[True, 1, 0, 0, 0]]],
)  # fmt: skip
def test_a_damaged_one_is_refused(asked: Asked, notices: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    document = taken(asked.server)
    document["firmware"]["notices"] = notices
    with pytest.raises(ProtocolError, match="notices"):
        state_document.prepare(destination(2, tmp_path_factory.mktemp("there")), document)


def test_a_client_learns_that_the_guest_has_moved(asked: Asked) -> None:
    asked.server.notifier.sea(0, then=asked.outcomes.append)
    asked.server.notifier.leave()
    assert asked.outcomes == [Outcome(None, None, "the guest has moved: it waits there")]


def story(directory: Path, at: int) -> int:
    """An abort that waits for its moment, an event and an interrupt in between; the backend is killed at line `at`.
    Each is made once. Returns how many lines there were.
    """
    world = World(directory, _Kill(at))
    guest, behind = world.guest, Machine()
    guest.reset(0)
    world.exchange(0)
    for function, *arguments in (
        (Function.EVENT_REGISTER, 0, HANDLER, 0, 0, 0),
        (Function.EVENT_ENABLE, 0),
        (Function.PE_UNMASK,),
    ):
        world.call(0, function, *arguments)
    asks: tuple[Callable[[Server], None], ...] = (
        lambda server: server.notifier.sea(0),
        lambda server: server.notifier.interrupt(SPI),
    )
    world.kill = _Kill(at)
    for ask in asks:
        before = world.server.journal.count
        if not world.do(ask) and world.server.journal.count == before:
            ask(world.server)  # it was not written down: the client was told nothing, and asks again
    seen = []
    for pstate in (0x3C5, 0x3C5, 0, 0, 0):
        guest.take_kicks()

        def answer() -> None:
            world.do(serve)
            serve(world.server)

        _, pc, *_ = come(guest, behind, answer, pstate)
        seen.append(pc)
        world.do(lambda server: server.notifier.tick())
    assert behind.pending == [SPI]
    assert seen.count(VBAR + 0x400) == 1, seen
    assert set(seen) <= {PC, VBAR + 0x400}
    assert not world.server.firmware.notices.waiting
    return world.kill.lines


STEP = 23


@pytest.mark.parametrize("first", [n if n == 0 else pytest.param(n, marks=pytest.mark.slow) for n in range(STEP)])
def test_killed_at_each_line_of_it(first: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    lines = story(tmp_path_factory.mktemp("undisturbed"), -1)
    for at in range(first, lines, STEP):
        with TemporaryDirectory() as directory:
            story(Path(directory), at)


# ---- error sources that are told of by these


SOURCES = numbered(
    [Source(name="abort", notify=Notify.SEA), Source(name="line", notify=Notify.INTERRUPT, interrupt=SPI)]
)
PLACED = AcpiArea(RAM_BASE).sources(SOURCES)


@pytest.fixture
def reporting(asked: Asked) -> Asked:
    place(asked.server.errors, Ram(asked.backend), PLACED)
    asked.server.errors.notifications = asked.server.notifier
    return asked


def ask(peer: Peer, name: str, **fields: Any) -> None:
    fields |= {"source": name, "block": b64(error())}
    peer.send(json.dumps({"id": 1, "cmd": "ras_report", **fields}).encode() + b"\n")


def test_an_error_that_an_abort_tells_of(reporting: Asked) -> None:
    peer, ram = Peer(reporting.backend), Ram(reporting.backend)
    ask(peer, "abort", address=0x7000, wait=True)
    assert ram.word(PLACED[0].block, 4), "it lies there before the guest is told"
    assert peer.lines() == []
    assert reporting.come()[1] == VBAR + 0x400
    (answer,) = peer.lines()
    assert answer["result"].items() >= {"outcome": "queued", "vcpu": 0, "source": "abort"}.items()
    assert reporting.machine.registers[SysReg.FAR_EL1] == 0x7000


def test_one_for_which_no_moment_comes_is_taken_back(reporting: Asked) -> None:
    peer = Peer(reporting.backend)
    ask(peer, "abort", wait=True, limit=2)
    reporting.come(pstate=0x5)
    reporting.later(3)
    (answer,) = peer.lines()
    assert "source 'abort': looked 1 times" in answer["error"]["message"]
    assert reporting.server.errors.state(PLACED[0]) == "free"
    assert records(reporting.server)[-1]["outcome"] == "refused"


def test_an_error_that_an_interrupt_tells_of(reporting: Asked) -> None:
    peer, ram = Peer(reporting.backend), Ram(reporting.backend)
    ask(peer, "line", wait=True)
    assert not ram.word(PLACED[1].block, 4), "whether the guest would notice is looked at first"
    reporting.come(pstate=0x3C5)
    assert ram.word(PLACED[1].block, 4)
    reporting.come(pstate=0x3C5)
    (answer,) = peer.lines()
    assert answer["result"]["outcome"] == "queued"
    assert reporting.machine.pending == [SPI]


def test_one_whose_interrupt_is_not_enabled_is_refused_and_nothing_is_written(reporting: Asked) -> None:
    reporting.machine.enabled.clear()
    peer, ram = Peer(reporting.backend), Ram(reporting.backend)
    peer.send(b'{"id": 7, "cmd": "ras_sources"}\n')
    reporting.come()
    (answer,) = peer.lines()
    why = "the guest has not enabled interrupt 100: no driver of its own listens"
    assert [(each["ready"], each["reason"]) for each in answer["result"]["sources"]] == [(True, None), (False, why)]
    ask(peer, "line")
    reporting.come()
    assert peer.lines()[0]["error"] == {"kind": "state", "message": f"source 'line': {why}"}
    assert not ram.word(PLACED[1].block, 4)


def test_another_backend_takes_an_error_back_that_nobody_was_told_of(reporting: Asked) -> None:
    ask(Peer(reporting.backend), "abort")
    reporting.server = reporting.guest.server()
    assert reporting.server.recover()
    reporting.server.errors.placed = PLACED
    reporting.come(pstate=0x5)
    assert reporting.server.errors.state(PLACED[0]) == "unread"
    reporting.later(LIMIT + 1)
    assert reporting.server.errors.state(PLACED[0]) == "free"


def test_another_backend_makes_an_interrupt_that_was_not_made(reporting: Asked) -> None:
    """It was killed when the error lay there, and nothing else had been done."""
    Ram(reporting.backend).write(PLACED[1].block, 1, 4)
    reporting.server = server = reporting.guest.server()
    server.errors.placed = PLACED
    assert server.recover()
    reporting.come(pstate=0x3C5)
    assert reporting.machine.pending == [SPI]
