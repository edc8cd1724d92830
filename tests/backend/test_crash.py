"""A backend that is killed at any line and started again: each call answered once, each trigger delivered once.

`kill -9` takes effect between two stores; here an exception raised by a trace function at line N stands for it: the
process's objects are thrown away, the window and the journal are what is left. Real kills of a real backend are in
tests/guest.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import pytest

from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from qemu_sdei.monitor.ops import read_phys
from qemu_sdei.sdei.constants import Function
from qemu_sdei.sdei.pstate import SCTLR_SPAN
from qemu_sdei.services.psci import Function as Psci
from qemu_sdei.smccc.service import Call, FunctionRange, JournalMode, Service, Steps
from tests.backend.simulated import SimulatedGuest, serve

PARTS = 16
PACKAGE = str(Path(__file__).parents[2] / "qemu_sdei")


class Killed(BaseException):
    """The process is gone."""


class _Kill:
    """Raises `Killed` at the given line executed inside the package, counted from 0."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.lines = 0
        self.over = False
        """It has happened: what follows need not be traced, which makes it many times slower."""

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.lines += 1
            if self.left == 0:
                self.left = -1
                self.over = True
                raise Killed
            self.left -= 1
        return self.trace


@contextmanager
def tracing(kill: _Kill) -> Iterator[None]:
    before = sys.gettrace()
    if not kill.over:
        sys.settrace(kill.trace)
    try:
        yield
    finally:
        sys.settrace(before)


class Adder(Service):
    """Deterministic, with state."""

    name = "adder"
    ranges = (FunctionRange(3, 0, 0),)
    journal = JournalMode.INPUT

    def __init__(self) -> None:
        self.total = 0

    def call(self, call: Call) -> int:
        self.total += call.args[0]
        return self.total

    def snapshot(self) -> Any:
        return self.total

    def restore(self, state: Any) -> None:
        self.total = state


class Peek(Service):
    """Reads memory by a micro-operation."""

    name = "peek"
    ranges = (FunctionRange(3, 1, 1),)

    def call(self, call: Call) -> Steps:
        first = yield read_phys(call.args[0])
        second, third = yield (read_phys(8), read_phys(16))
        return (first.value + second.value, third.value)


class World:
    """A guest, and the backend that serves it now."""

    def __init__(self, directory: Path, kill: _Kill, guest: type[SimulatedGuest] = SimulatedGuest) -> None:
        self.guest = guest(2, directory)
        self.kill = kill
        self.seen: list[Any] = []
        self.server: Server = self._start()

    def _start(self) -> Server:
        server = self.guest.server((Adder(), Peek()))
        server.recover()
        return server

    def do(self, what: Callable[[Server], Any]) -> bool:
        """Run a step of the backend; when it is killed, start another. False: the step itself may not have happened."""
        try:
            with tracing(self.kill):
                what(self.server)
        except Killed:
            self.server = self._start()
            serve(self.server)
            return False
        return True

    def exchange(self, pe: int) -> list[int]:
        """Have the frame that `pe` posted answered, and take the answer."""
        self.do(serve)
        serve(self.server)
        answer = self.guest.take(pe)
        while answer[0] & AnswerFlag.REPOST:
            frame = self.guest.window.frames[pe]
            for n in range(answer[0] >> 8 & 0xFF):
                frame[Word.OPS + 3 * n + 2] = 0x1000 + frame[Word.OPS + 3 * n + 1]
            self.guest.post(pe, Kind.OPS)
            self.do(serve)
            serve(self.server)
            answer = self.guest.take(pe)
        self.seen.append((pe, answer))
        return answer

    def call(self, pe: int, function: int, *arguments: int) -> None:
        self.guest.smc(pe, function, *arguments)
        self.exchange(pe)

    def kicks(self) -> None:
        """Kicks that change something are seen; spurious ones (a restarted backend kicks everybody) must not matter."""
        for pe in self.guest.take_kicks():
            before = self.guest.window.contexts[pe].tolist()
            self.guest.post(pe, Kind.KICK)
            self.do(serve)
            serve(self.server)
            answer = self.guest.take(pe)
            if answer[1:] != before or not (answer[0] == 0 or answer[0] == AnswerFlag.PARK):
                self.seen.append((pe, answer))

    def trigger(self, event: int, pe: int) -> None:
        """Inject. Killed before the trigger was written down: the client got no answer and asks again."""
        records = self.server.journal.count
        if not self.do(lambda server: server.trigger(event, pe)) and self._lost(records):
            self.server.trigger(event, pe)

    def _lost(self, records: int) -> bool:
        return self.server.journal.count == records


def scenario(world: World) -> None:
    """Boot, both CPUs on, events in most states, services with state, CPU off and on, a reset."""
    guest = world.guest
    guest.id_registers["ID_AA64MMFR1_EL1"] = 1 << 20  # PAN
    for pe in (0, 1):
        guest.reset(pe)
        world.exchange(pe)
    world.call(0, Function.VERSION)
    world.call(0, Psci.CPU_ON | 0x4000_0000, 1, 0x4100_0000, 5)
    world.kicks()
    for pe in (0, 1):
        world.call(pe, Function.EVENT_REGISTER, 0, 0x4300_0000, 0xA0 + pe, 0, 0)
        world.call(pe, Function.EVENT_ENABLE, 0)
        world.call(pe, Function.PE_UNMASK)
    world.call(0, 0xC300_0000, 5)
    world.call(0, Function.EVENT_SIGNAL, 0, 0)
    world.call(0, Function.EVENT_CONTEXT, 0)
    world.trigger(0, 0)
    world.call(0, 0xC300_0000, 6)
    world.call(0, Function.EVENT_COMPLETE, 0)
    guest.window.frames[0][Word.SCTLR_EL1] = SCTLR_SPAN  # by the handler
    world.call(0, Function.EVENT_COMPLETE_AND_RESUME, 0x4400_0280)
    world.call(0, Function.PE_MASK)
    world.call(0, Function.EVENT_SIGNAL, 0, 1)
    world.kicks()
    world.call(1, 0xC300_0001, 64)
    world.call(1, Function.EVENT_COMPLETE, 0)
    world.trigger(0, 1)
    world.kicks()
    world.call(1, Function.EVENT_UNREGISTER, 0)
    world.call(1, Function.EVENT_COMPLETE, 0)
    world.call(1, Function.PE_UNMASK)
    world.call(1, Psci.CPU_SUSPEND | 0x4000_0000, 1 << 16, 0x4500_0000, 0x77)
    world.trigger(0, 0)
    world.kicks()
    world.call(1, Function.PE_MASK)
    world.call(0, Psci.SYSTEM_SUSPEND | 0x4000_0000, 0x4500_0000, 0x78)
    world.call(1, Psci.CPU_OFF)
    world.call(0, Psci.SYSTEM_SUSPEND | 0x4000_0000, 0x4500_0000, 0x78)
    world.call(0, Function.PE_UNMASK)
    world.call(0, Psci.CPU_SUSPEND | 0x4000_0000, 1 << 16, 0x4500_0000, 0x79)
    world.call(0, Function.EVENT_COMPLETE, 0)
    world.call(0, Psci.AFFINITY_INFO, 1, 0)
    world.call(0, 0xC300_0000, 7)
    for pe in (1, 0):
        guest.reset(pe)
        world.exchange(pe)
    world.call(0, Function.EVENT_STATUS, 0)
    world.call(0, 0xC300_0000, 8)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], int]:
    kill = _Kill(-1)
    world = World(tmp_path_factory.mktemp("undisturbed"), kill)
    scenario(world)
    return world.seen, kill.lines


def check(at: int, directory: Path, undisturbed: list[Any]) -> None:
    world = World(directory, _Kill(at))
    scenario(world)
    assert world.seen == undisturbed, f"killed at line {at}"


@pytest.mark.parametrize("part", range(8))
def test_killed_at_a_random_line(
    part: int, undisturbed: tuple[list[Any], int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    seen, lines = undisturbed
    chosen = random.Random(part).sample(range(lines), 10)
    for at in chosen:
        check(at, tmp_path_factory.mktemp("killed"), seen)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_every_line(part: int, undisturbed: tuple[list[Any], int]) -> None:
    """In parts, each of them from all over the run: how long all takes depends on the machine."""
    seen, lines = undisturbed
    for at in range(part, lines, PARTS):
        with TemporaryDirectory() as directory:  # a journal each time: kept, they would be gigabytes
            check(at, Path(directory), seen)


def test_a_full_journal_becomes_a_checkpoint_and_nothing_is_lost(tmp_path: Path) -> None:
    world = World(tmp_path, _Kill(-1))
    world.guest.reset(0)
    world.exchange(0)
    for _ in range(5000):
        world.call(0, 0xC300_0000, 1)
    world.server = world._start()
    world.call(0, 0xC300_0000, 1)
    assert world.seen[-1][1][3] == 5001


@pytest.mark.parametrize(
    ("word", "value"),
    [(0, 2**64 - 1), (1, 77), (1, 2), (6, 2**33), (7, 12345)],
    ids=["magic", "generation", "slot", "length", "checksum"],
)
def test_a_damaged_journal_is_refused_with_a_reason(tmp_path: Path, word: int, value: int) -> None:
    world = World(tmp_path, _Kill(-1))
    world.guest.reset(0)
    world.exchange(0)
    world.call(0, 0xC300_0000, 1)
    with world.guest.journal_path.open("r+b") as file:
        file.seek(8 * word)
        file.write(value.to_bytes(8, "little"))
    with pytest.raises(ProtocolError, match="journal"):
        world._start()


def test_a_journal_of_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"x" * 100)
    with pytest.raises(ProtocolError, match="100 bytes"):
        World(tmp_path, _Kill(-1))
