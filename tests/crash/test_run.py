"""A matrix is run, without guests: what is booted how often, what fails, what is left."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from concurrent.futures import wait as futures_wait
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.crash import run as running
from qemu_sdei.crash.cells import Cell, Origin
from qemu_sdei.crash.document import CellResult
from qemu_sdei.crash.run import Plan
from qemu_sdei.crash.verdict import Result, Verdict
from qemu_sdei.errors import GuestError, UsageError
from tests.crash.cells import AXES, dumped, wedged


class World:
    """What would be guests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.saved: list[Path] = []
        self.crashed: Counter[Cell] = Counter()
        self.error: Exception | None = None
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.waits = False

    def save(self, origin: Origin, directory: Path, **_: Any) -> str:
        if self.error is not None:
            raise self.error
        directory.mkdir()
        self.saved.append(directory)
        return f"{origin.kernel.name}.0-arm64"

    def crash(self, cell: Cell, origin: Path, scratch: Path, limits: Any) -> Verdict:
        assert origin.is_dir()
        self.crashed[cell] += 1
        self.begun.set()
        if self.waits:
            assert self.ended.wait(30)
        return wedged() if self.crashed[cell] == 2 and cell.ending.name == "off" else dumped()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("qemu_sdei.crash.origins.save", found.save)
    monkeypatch.setattr("qemu_sdei.crash.origins.close_all", found.ended.set)
    monkeypatch.setattr(running, "crash", found.crash)
    monkeypatch.setattr(running, "find_qemu", lambda: type("Qemu", (), {"version": (7, 2, 0)}))
    return found


def test_each_guest_is_booted_once_and_each_cell_run_so_often(world: World) -> None:
    told: list[CellResult] = []
    matrix = running.run(Plan(AXES, rounds=3, jobs=2), on_cell=told.append)
    assert len(world.saved) == len(set(world.saved)) == 2
    assert set(world.crashed.values()) == {3}
    assert len(matrix.results) == len(told) == len(AXES)
    assert [result.agrees for result in matrix.results[:4]] == [True, False, True, True]
    assert {result.verdict.result for result in matrix.results} == {Result.DUMPED, Result.MISSING}
    assert matrix.releases == {"6.1": "6.1.0-arm64"}
    assert matrix.judged
    assert list(world.directory.iterdir()) == []


def test_a_guest_that_does_not_boot_is_cells_that_are_not_run(world: World) -> None:
    world.error = GuestError("it hangs")
    matrix = running.run(Plan(AXES))
    assert not matrix.judged
    assert matrix.results[0].verdict.reason == "6.1, up capture kernel: it cannot be prepared: it hangs"
    assert list(world.directory.iterdir()) == []


def test_what_cannot_be_is_said_at_once(world: World) -> None:
    world.error = UsageError("there is no kernel 6.1")
    with pytest.raises(UsageError, match=r"no kernel 6\.1"):
        running.run(Plan(AXES))
    assert list(world.directory.iterdir()) == []


def test_an_interrupted_run_ends_its_guests_and_begins_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.waits = True

    class StopError(BaseException):
        pass

    def stop(*_: Any, **__: Any) -> Any:
        assert world.begun.wait(30)
        raise StopError

    calls = iter([stop])

    def wait(futures: Any, **options: Any) -> Any:
        return next(calls, futures_wait)(futures, **options)

    monkeypatch.setattr("qemu_sdei.crash.run.wait", wait)
    with pytest.raises(StopError):
        running.run(Plan(AXES, jobs=1))
    assert sum(world.crashed.values()) == 1
    assert world.ended.is_set()
    assert list(world.directory.iterdir()) == []
