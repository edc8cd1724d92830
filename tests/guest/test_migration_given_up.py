"""Ctrl-C at any moment of a migration: the guest is in one place, runs on, and whoever gave up is told where."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.supervisor_client import ask
from qemu_sdei.migration.options import MigrationOptions
from qemu_sdei.migration.remote_address import parse
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import check_nothing_left, explained, until
from tests.guest.load import EventLoad, at_rest
from tests.guest.remote import Receiving

pytestmark = pytest.mark.guest


class CtrlC(BaseException):
    """As a signal raises it in the command."""


def idle() -> GuestOptions:
    return GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="64M", name="a")


def given_up(owner: Path, command: str, request: dict[str, Any], phase: str, after: float) -> str:
    """Ask for something, and give it up `after` seconds from when `phase` was reported. What was said then."""

    def look(step: dict[str, Any]) -> None:
        if step["phase"] == phase:
            time.sleep(after)
            raise CtrlC

    try:
        ask(owner, command, request, look)
    except CtrlC as end:
        return str(end.__notes__[0])
    return ""  # that phase was over before it could be told of


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("scale", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_on_one_host(scale: int, runtime: Path) -> None:
    """Where there is no way back any more it is too late; nothing that was accepted is lost or comes twice."""
    chance = random.Random(7)
    said: set[str] = set()
    with Guest(idle()) as guest:
        guest.expect("idle: ready")
        with EventLoad(guest, (0,), 2, pause=0.002) as load:
            for route, phase, spread, count in (
                ("shared", "start", 0.2, 1), ("shared", "ram", 0.02, 2), ("shared", "restore", 0.03, 6),
                ("copy", "verify", 0.1, 1), ("live", "ram", 0.1, 1), ("live", "restore", 0.02, 1),
                ("postcopy", "restore", 0.02, 1), ("postcopy", "fetch", 0.0, 1),
            ):  # fmt: skip
                for _ in range(count * scale):
                    before = guest.name
                    options = MigrationOptions(route=route).to_json()
                    request = {"name": None, "options": options}
                    note = given_up(rundir.find(before).owner, "migrate", request, phase, spread * chance.random())
                    if not note and phase == "fetch":
                        continue
                    here = note == f"given up; guest {before!r} goes on"
                    assert here or note == f"too late to give up, migrate is done: the guest is {guest.name!r} now"
                    assert here == (guest.name == before)
                    with explained(guest):
                        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed", (route, phase, note)
                    said.add(note.split(",")[0].split(";")[0])
        assert said == {"given up", "too late to give up"}
        counts = at_rest(guest)
        assert counts["accepted"] == counts["merged"] + counts["delivered"]
        assert counts["rejected"] == 0
        assert not any(load.unknown.values())
        assert [path.name for path in (runtime / "qemu-sdei").iterdir() if path.is_dir()] == [guest.name]
    check_nothing_left(runtime)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_to_another_host(count: int, runtime: Path) -> None:
    """It runs at one of the two, and the other one knows."""
    chance = random.Random(11)
    for number in range(count):
        with Receiving(name="b") as there, Guest(idle()) as guest:
            guest.expect("idle: ready")
            request = {"to": parse(there.to).to_json(), "options": MigrationOptions(route="live").to_json()}
            phase = ("connect", "ram", "verify", "restore")[number % 4]
            note = given_up(rundir.find("a").owner, "migrate-to", request, phase, 0.05 * chance.random())
            gone = note.startswith("too late to give up, migrate-to is done")
            assert gone or note == "given up; guest 'a' goes on"
            assert (there.guest if gone else guest).inject(0, 1, wait=True, timeout=20).outcome == "completed"
            if gone:
                guest.wait_off(20)
            else:
                until("the receiver knows", lambda there=there: there.failures)
    check_nothing_left(runtime)
