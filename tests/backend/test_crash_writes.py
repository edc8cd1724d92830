"""A backend that is killed before each single store that others can see, and around each ring: nothing lost or doubled.

What outlives a backend is the window, the journal and the doorbell, so what a `kill -9` can leave differs only by how
many of its stores had come so far. Python has no hook for those; its tracing of opcodes does: each STORE_SUBSCR of the
rooms that write there is one (and some that only write the process's own memory, which does no harm).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from opcode import opmap
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from qemu_sdei.backend.loop.server import Server
from tests.backend import simulated
from tests.backend.test_crash import PACKAGE, Killed, World, _Kill, scenario, tracing

STORE = opmap["STORE_SUBSCR"]
WRITERS = ("backend", "monitor", "sdei", "services", "smccc")
"""Rooms that have a view of the window or the journal."""
RING = "ring"


@dataclass(frozen=True)
class Site:
    """A place in the code that stores, or the doorbell."""

    code: CodeType | str
    offset: int


class KillAtWrite(_Kill):
    """Raises `Killed` before the write number `at`, counted from 0. Notes where each write is done."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.sites: list[Site] = []

    def write(self, site: Site) -> None:
        self.sites.append(site)
        if self.left == 0:
            self.left = -1
            self.over = True
            raise Killed
        self.left -= 1

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE) or name[len(PACKAGE) + 1 :].split("/")[0] not in WRITERS:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode" and frame.f_code.co_code[frame.f_lasti] == STORE:
            self.write(Site(frame.f_code, frame.f_lasti))
        return self.trace


class Doorbell(simulated.SilentDoorbell):
    """A ring is a write too: killed before it, and after it."""

    kill: KillAtWrite | None = None

    def ring(self) -> None:
        if self.kill is None:
            super().ring()
        else:
            self.kill.write(Site(RING, 0))
            super().ring()
            self.kill.write(Site(RING, 1))


class DyingWorld(World):
    """One whose backend dies before a given write, and the next one too, while it takes up what that one left."""

    def __init__(self, directory: Path, kill: KillAtWrite, again: KillAtWrite) -> None:
        self.again = again
        self.started = False
        super().__init__(directory, kill)

    def _start(self) -> Server:
        # The very first has nothing to take up.
        again, self.started = self.again if self.started else KillAtWrite(-1), True
        Doorbell.kill = again
        try:
            with tracing(again):
                return super()._start()
        except Killed:
            Doorbell.kill = None
            return super()._start()
        finally:
            Doorbell.kill = None

    def do(self, what: Callable[[Server], Any]) -> bool:
        Doorbell.kill = self.kill  # type: ignore[assignment]
        try:
            return super().do(what)
        finally:
            Doorbell.kill = None


def run(at: int, directory: Path, monkeypatch: pytest.MonkeyPatch, again: int = -1) -> tuple[list[Any], DyingWorld]:
    """The scenario with a death at write `at`, and one at write `again` of the recovery: what the guest saw."""
    monkeypatch.setattr(simulated, "SilentDoorbell", Doorbell)
    world = DyingWorld(directory, KillAtWrite(at), KillAtWrite(again))
    scenario(world)
    return world.seen, world


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[Site]]:
    with pytest.MonkeyPatch.context() as patch:
        seen, world = run(-1, tmp_path_factory.mktemp("undisturbed"), patch)
        assert isinstance(world.kill, KillAtWrite)
        return seen, world.kill.sites


def check(
    chosen: list[int],
    undisturbed: tuple[list[Any], list[Site]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, sites = undisturbed
    for at in chosen:
        site = sites[at]
        found, _ = run(at, tmp_path_factory.mktemp("killed"), monkeypatch)
        where = site.code if isinstance(site.code, str) else f"{site.code.co_qualname}+{site.offset}"
        assert found == seen, f"killed before write {at}, at {where}"


def test_the_writes_are_seen(undisturbed: tuple[list[Any], list[Site]]) -> None:
    """The window's acknowledgement, the journal's commit, the kick and the ring are among them."""
    names = {site.code if isinstance(site.code, str) else site.code.co_qualname for site in undisturbed[1]}
    wanted = {
        RING, "CallFrames.frame", "Kicks.send", "Journal.append", "Journal.trigger", "Journal.checkpoint",
        "Journal.append_ops", "Exchange.call", "encode",
    }  # fmt: skip
    assert wanted <= names, f"missing: {wanted - names}"


@pytest.mark.not_quick
@pytest.mark.timeout(300)
def test_killed_before_a_write_of_each_place(
    undisturbed: tuple[list[Any], list[Site]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places: dict[Site, list[int]] = {}
    for at, site in enumerate(undisturbed[1]):
        places.setdefault(site, []).append(at)
    choose = random.Random(1)
    check([choose.choice(times) for times in places.values()], undisturbed, tmp_path_factory, monkeypatch)


def killed_twice(
    times: int,
    undisturbed: tuple[list[Any], list[Site]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose = random.Random(times)
    second = 0
    for _ in range(times):
        at, again = choose.randrange(len(undisturbed[1])), choose.randrange(400)
        found, world = run(at, tmp_path_factory.mktemp("killed"), monkeypatch, again)
        second += world.again.left == -1
        assert found == undisturbed[0], f"killed before write {at}, and before write {again} of the recovery"
    assert second > times // 10


@pytest.mark.not_quick
@pytest.mark.timeout(300)
def test_the_one_that_recovers_is_killed_too(
    undisturbed: tuple[list[Any], list[Site]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed_twice(20, undisturbed, tmp_path_factory, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_one_that_recovers_is_killed_too_often(
    undisturbed: tuple[list[Any], list[Site]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed_twice(2000, undisturbed, tmp_path_factory, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_before_every_write(
    undisturbed: tuple[list[Any], list[Site]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check(list(range(len(undisturbed[1]))), undisturbed, tmp_path_factory, monkeypatch)
