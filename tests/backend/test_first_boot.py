"""A backend that is killed at any line while the machine boots for the first time, before there is any checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.boot.config import Entry
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from qemu_sdei.monitor.ops import MicroOp, write_phys
from qemu_sdei.sdei.constants import Function
from tests.backend.simulated import ENTRY, SimulatedGuest, serve
from tests.backend.test_crash import World, _Kill

STEPS = 3
DEVICE = 0x0902_0010


class SteppingBoot:
    """A boot with micro-operations before its end, as one by ACPI: each step is told by what it wrote."""

    loaded: list[int]

    def begin(self, again: bool) -> list[MicroOp]:
        return [write_phys(DEVICE, 1)]

    def proceed(self, frame: memoryview) -> list[MicroOp]:
        step = frame[Word.OPS + 2]
        return [write_phys(DEVICE, step + 1)] if step < STEPS else []

    def load(self) -> Entry:
        return ENTRY


def boot(directory: Path, kill: _Kill) -> SimulatedGuest:
    """Boot, as the monitor does it, and make two calls; every exchange may see the backend die."""
    world = World.__new__(World)
    world.guest = guest = SimulatedGuest(2, directory, SteppingBoot)
    world.kill = kill
    world.seen = []
    world.server = world._start()
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
    assert world.server.firmware.epoch == 1
    assert not [note for note in world.server.notes if note[1] == "reject"]
    return guest


def test_undisturbed(tmp_path: Path) -> None:
    boot(tmp_path, _Kill(-1))


def test_killed_at_every_line(tmp_path: Path) -> None:
    whole = _Kill(-1)
    (tmp_path / "0").mkdir()
    boot(tmp_path / "0", whole)
    assert whole.lines > 100
    for line in range(0, whole.lines, 5):  # a frame is hundreds of lines, the stores that count are apart
        directory = tmp_path / f"{line + 1}"
        directory.mkdir()
        try:
            boot(directory, _Kill(line))
        except AssertionError as error:
            pytest.fail(f"killed at line {line}: {error}")
