"""A backend that is killed at any line while the machine boots: for the first time, before there is any checkpoint, and
for the second, when the checkpoint is of a machine that runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from qemu_sdei.backend.control import state_document
from qemu_sdei.boot.config import Entry
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from qemu_sdei.monitor.ops import MicroOp, write_phys
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.handed_over import machine, taken
from tests.backend.simulated import ENTRY, SimulatedGuest, records, serve
from tests.backend.test_crash import World, _Kill
from tests.examples import THOROUGH

STEPS = 3
EVERY = {False: 17, True: 5}
"""Of the lines, by whether all is tried."""
DEVICE = 0x0902_0010


class SteppingBoot:
    """A boot with micro-operations before its end, as one by ACPI: each step is told by what it wrote."""

    loaded: list[int]

    def begin(self, again: bool) -> list[MicroOp]:
        return [write_phys(DEVICE, 1)]

    def proceed(self, frame: memoryview) -> list[MicroOp]:
        step = frame[Word.OPS + 2]
        return [write_phys(DEVICE, step + 1)] if step < STEPS else []

    def load(self, epoch: int) -> Entry:
        return ENTRY


class Booting:
    """A guest that boots as the monitor has it; every exchange may see the backend die."""

    def __init__(self, directory: Path) -> None:
        self.world = world = World.__new__(World)
        world.guest = SimulatedGuest(2, directory, SteppingBoot)
        world.kill = _Kill(-1)
        world.seen = []
        world.server = world._start()

    def boot(self) -> None:
        """Both CPUs come out of reset, and CPU 0 makes two calls."""
        world, guest = self.world, self.world.guest
        guest.reset(1)
        guest.reset(0)
        steps = []
        while True:
            world.do(serve)
            serve(world.server)
            for pe in guest.take_kicks():
                if pe == 1:
                    assert guest.take(1)[0] == AnswerFlag.PARK
                    guest.post(1, Kind.KICK)
                    serve(world.server)
            answer = guest.take(0)
            if not answer[0] & AnswerFlag.REPOST:
                break
            steps.append(guest.window.frames[0][Word.OPS + 2])
            guest.post(0, Kind.OPS)
        assert steps == [2, 3]  # `serve` has done those of the RESET frame
        assert answer[1] == ENTRY.pc
        assert answer[3] == ENTRY.x0
        world.call(0, Function.VERSION)
        assert world.seen[-1][1][3] == 1 << 48 | 1 << 32 | 0x4B564D
        world.call(0, Function.PE_UNMASK)
        assert guest.take(1)[0] == AnswerFlag.PARK

    def boot_again(self, kill: _Kill) -> None:
        """Both CPUs are on then, and CPU 0 has an event."""
        world = self.world
        self.boot()
        world.call(0, Function.EVENT_REGISTER, 0, 0x4300_0000, 0, 0, 0)
        world.call(0, Psci.CPU_ON | 0x4000_0000, 1, 0x4100_0000, 5)
        world.kicks()
        assert world.seen[-1][1][1] == 0x4100_0000
        world.kill = kill
        self.boot()
        for function, answer in ((Psci.AFFINITY_INFO, 1), (Function.EVENT_STATUS, 0)):
            world.call(0, function, 0 if answer == 0 else 1, 0)
            assert world.seen[-1][1][3] == answer

    def check(self, epoch: int) -> None:
        """The machine was reset so often, and no frame was taken for forged."""
        server = self.world.server
        assert server.firmware.machine.epoch == epoch
        assert not [record for record in records(server) if record["type"] == "reject"]


def first(directory: Path, kill: _Kill) -> None:
    booting = Booting(directory)
    booting.world.kill = kill
    booting.boot()
    booting.check(1)


def second(directory: Path, kill: _Kill) -> None:
    booting = Booting(directory)
    booting.boot_again(kill)
    booting.check(2)


@pytest.mark.parametrize("boot", [first, second])
def test_undisturbed(boot: Callable[[Path, _Kill], None], tmp_path: Path) -> None:
    boot(tmp_path, _Kill(-1))


@pytest.mark.not_quick
@pytest.mark.parametrize("boot", [first, second])
def test_killed_at_every_line(boot: Callable[[Path, _Kill], None], tmp_path: Path) -> None:
    whole = _Kill(-1)
    (tmp_path / "0").mkdir()
    boot(tmp_path / "0", whole)
    assert whole.lines > 100
    # A frame is hundreds of lines, the stores that count are apart; all of those are met with `--all`.
    for line in range(0, whole.lines, EVERY[settings.get_current_profile_name() == THOROUGH]):
        directory = tmp_path / f"{line + 1}"
        directory.mkdir()
        try:
            boot(directory, _Kill(line))
        except AssertionError as error:
            pytest.fail(f"killed at line {line}: {error}")


def test_a_boot_goes_on_elsewhere_with_another_monitors_proof(tmp_path: Path) -> None:
    """The state is taken while CPU 0 does its first micro-operations; what it posts then has the proof of its monitor,
    which the destination has never seen.
    """
    (tmp_path / "there").mkdir()
    guest, there = SimulatedGuest(1, tmp_path), SimulatedGuest(1, tmp_path / "there")
    there.proof = guest.proof ^ 2
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    guest.reset(0)
    server.frame(0, guest.window.seq[0])
    assert guest.window.frames[0][Word.FLAGS] & AnswerFlag.REPOST, "a second boot begins with micro-operations"
    state = taken(server)
    moved = there.server()
    moved.guest.machine = machine(1)
    state_document.restore(moved, state)
    there.take(0)
    there.post(0, Kind.OPS)
    moved.frame(0, there.window.seq[0])
    assert there.window.frames[0][Word.PC] == ENTRY.pc
    assert moved.status()["epoch"] == 2
