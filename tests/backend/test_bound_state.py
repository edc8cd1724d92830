"""Bound interrupts across crashes and in documents: killed at any line, state in the middle of an exchange."""

from __future__ import annotations

import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor.layout import Kind
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.test_bound import ALARM, HANDLER, TIMER, BoundWorld, P, S
from tests.backend.test_crash import PARTS, _Kill


def scenario(world: BoundWorld) -> None:
    """Registration, interrupts, completion, unregistration, power, of both kinds."""
    world.boot()
    for event, intid in ((P, TIMER), (S, ALARM)):
        for pe in (1, 0):
            world.enable(pe, event)
            world.interrupt(intid, pe)
            world.interrupt(intid, pe)
            world.call(pe, Function.EVENT_COMPLETE, 0)
            world.interrupt(intid, pe)
            world.call(pe, Function.EVENT_UNREGISTER, event)
            world.call(pe, Function.EVENT_COMPLETE_AND_RESUME, 0x4400_0280)
    world.enable(1, P)
    world.interrupt(TIMER, 1)
    world.call(1, Psci.CPU_OFF)
    world.enable(0, S)
    world.interrupt(ALARM, 1)
    world.kicks()
    world.call(0, Function.EVENT_COMPLETE, 0)
    world.call(0, Function.SHARED_RESET)


def lines_of(world: BoundWorld) -> list[tuple[Any, ...]]:
    return [(*claim, *line.state(), line.active) for claim, line in world.gic.lines.items()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[Any], int]:
    world = BoundWorld(tmp_path_factory.mktemp("undisturbed"))
    scenario(world)
    assert len([1 for _, answer in world.seen if answer[1] == HANDLER]) > 8
    return world.seen, lines_of(world), world.kill.lines


def check(at: int, directory: Path, undisturbed: tuple[list[Any], list[Any], int]) -> None:
    world = BoundWorld(directory, _Kill(at))
    scenario(world)
    assert world.seen == undisturbed[0], f"killed at line {at}"
    assert lines_of(world) == undisturbed[1], f"killed at line {at}"


@pytest.mark.parametrize("part", range(6))
def test_killed_at_a_random_line(
    part: int, undisturbed: tuple[list[Any], list[Any], int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    for at in random.Random(part).sample(range(undisturbed[2]), 10):
        check(at, tmp_path_factory.mktemp("killed"), undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_every_line(part: int, undisturbed: tuple[list[Any], list[Any], int]) -> None:
    """As in test_crash."""
    for at in range(part, undisturbed[2], PARTS):
        with TemporaryDirectory() as directory:
            check(at, Path(directory), undisturbed)


def in_the_middle(tmp_path: Path) -> BoundWorld:
    """Owned interrupts, one operator at work, one that waits for it, one that is being quieted."""
    world = BoundWorld(tmp_path)
    world.boot()
    world.enable(1, P)
    world.enable(1, S)
    world.guest.smc(1, Function.EVENT_UNREGISTER, S)
    world.step(1)
    world.guest.smc(0, Function.EVENT_REGISTER, S, HANDLER, 0, 0, 0)
    world.step(0)
    return world


def test_state_in_the_middle_of_it(tmp_path: Path) -> None:
    """Through JSON into another firmware: the same document, and the exchanges go on."""
    world = in_the_middle(tmp_path)
    document = json.loads(json.dumps(world.server.firmware.snapshot()))
    assert document["gic"]["jobs"]
    again = Firmware(2)
    again.restore(document)
    assert again.snapshot()["gic"] == document["gic"]
    world.server.checkpoint()
    world.server = world._start()
    for pe in (1, 0):
        world.guest.post(pe, Kind.OPS)
        assert world.exchange(pe)[3] == 0
    assert world.gic.lines[ALARM, -1].group0


JUNK: list[Any] = [None, True, -1, -2, 0, 1, 5, 99, 1 << 70, "x", [], [1], [[1]], {}]


def test_damaged_state_is_refused_or_taken(tmp_path: Path) -> None:
    """Never anything but a `ProtocolError`."""
    document = in_the_middle(tmp_path).server.firmware.snapshot()
    numbers = random.Random(7)
    refused = 0
    for _ in range(600):
        damaged = json.loads(json.dumps(document))
        node = damaged["gic"]
        while True:
            key = numbers.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if not node[key] or not isinstance(node[key], (dict, list)) or numbers.random() < 0.3:
                break
            node = node[key]
        node[key] = numbers.choice(JUNK)
        try:
            Firmware(2).restore(damaged)
        except ProtocolError:
            refused += 1
    assert refused > 200
