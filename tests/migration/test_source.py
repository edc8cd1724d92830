"""The source's half by itself, as `save` and snapshots use it too; also with a QEMU that is slow or does not obey."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import BusyError, GuestError, GuestTimeoutError, StandsStillError
from qemu_sdei.migration import source as source_module
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.options import COPY, LIVE, Hold, MigrationOptions, Step, no_report
from qemu_sdei.migration.source import Source
from tests.migration.fakes import LIMIT, FakeBackend, FakeDestination, FakeSide, Trip

URI = FakeDestination.URI


def leave(
    path: Path,
    what: Callable[[Source, FakeSide, FakeBackend], Awaitable[None]],
    *,
    hold: Hold | None = None,
    timeout: float = LIMIT,
    trip: Trip | None = None,
) -> None:
    """Do `what` with a source that is connected to its backend."""

    async def run() -> None:
        known = trip or Trip()
        backend, side = FakeBackend(path, known), FakeSide(path, known)
        await backend.open()
        link = await BackendLink.open(path / rundir.CONTROL)
        async with asyncio.timeout(LIMIT):
            await what(Source(side, link, hold, no_report, timeout), side, backend)
        known.release.set()
        link.close()
        backend.close()

    asyncio.run(run())


def test_a_guest_is_written_to_a_file(tmp_path: Path) -> None:
    async def save(source: Source, side: FakeSide, backend: FakeBackend) -> None:
        assert await source.pause() == (True, 2)
        assert (await source.transfer(URI, MigrationOptions(COPY)))["status"] == "completed"
        assert not side.running
        await source.resume()
        assert side.running
        assert not side.leaving

    leave(tmp_path, save)


def test_many_connections(tmp_path: Path) -> None:
    """Both sides must know how many there are."""
    asked: list[dict[str, Any]] = []

    async def prepare(source: Source, side: FakeSide, backend: FakeBackend) -> None:
        side._migrate_set_parameters = lambda **given: asked.append(given) or {}  # type: ignore[attr-defined, func-returns-value]
        await source.prepare(MigrationOptions(COPY, multifd=4))
        assert asked[0] == {"multifd_channels": 4}

    leave(tmp_path, prepare)


def test_a_hold_point_that_is_not_reached(tmp_path: Path) -> None:
    async def hold(source: Source, side: FakeSide, backend: FakeBackend) -> None:
        with pytest.raises(GuestTimeoutError, match="hold point 'running' of event 0x7 on vCPU 1 was not reached"):
            await source.reach_hold_point()

    leave(tmp_path, hold, hold=Hold("running", 7, 1, timeout=0.05), trip=Trip("backend held"))


def test_until_a_hold_point_ram_is_sent_slowly(tmp_path: Path) -> None:
    bandwidths: list[int] = []

    async def begin(source: Source, side: FakeSide, backend: FakeBackend) -> None:
        def parameters(max_bandwidth: int, **_: object) -> dict[str, Any]:
            bandwidths.append(max_bandwidth)
            return {}

        side._migrate_set_parameters = parameters  # type: ignore[attr-defined]
        await source.begin(URI, MigrationOptions(LIVE))
        assert bandwidths[0] < bandwidths[1] == source_module.MAX_BANDWIDTH

    leave(tmp_path, begin, hold=Hold("running"))


def test_a_guest_in_a_state_that_it_cannot_leave_from(tmp_path: Path) -> None:
    async def pause(source: Source, side: FakeSide, backend: FakeBackend) -> None:
        side._query_status = lambda: {"status": "internal-error"}  # type: ignore[method-assign]
        with pytest.raises(GuestError, match="while QEMU says that it is 'internal-error'"):
            await source.pause()

    leave(tmp_path, pause)


def test_a_service_that_is_busy_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "_BUSY_TRIES", 3)

    class Busy(Trip):
        async def at(self, place: str) -> None:
            await super().at(place)
            if place == "backend freeze":
                raise BusyError("a service is busy")

    async def pause(source: Source, side: FakeSide, backend: FakeBackend) -> None:
        with pytest.raises(BusyError, match="each time that the guest was paused"):
            await source.pause()
        await source.resume()
        assert side.running

    leave(tmp_path, pause, trip=Busy())


def test_a_guest_that_gives_no_heartbeat_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is migrated all the same."""
    monkeypatch.setattr(source_module, "_HEARTBEAT", 0.02)

    async def ask(source: Source, side: FakeSide, backend: FakeBackend) -> None:
        await source.ask_for_heartbeats(live=True)

    leave(tmp_path, ask, trip=Trip("backend signs"))


def test_qemu_that_takes_too_long(tmp_path: Path) -> None:
    """Progress is told all along; then the guest is resumed."""
    steps: list[Step] = []

    async def send(source: Source, side: FakeSide, backend: FakeBackend) -> None:
        source._report = steps.append
        await source.prepare(MigrationOptions(LIVE))
        side._query_migrate = lambda: {"status": "active", "ram": {"total": 100, "remaining": 60}}  # type: ignore[method-assign]
        with pytest.raises(GuestTimeoutError, match=r"did not transfer the guest within 0\.05 s"):
            await source.transfer(URI, MigrationOptions(LIVE))
        assert {(step.phase, step.done, step.total) for step in steps} == {("ram", 40, 100)}
        del side.__dict__["_query_migrate"]
        await source.resume()
        assert side.running

    leave(tmp_path, send, timeout=0.05)


def test_qemu_that_stays_paused_is_not_said_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "_SETTLE", 0.05)

    async def resume(source: Source, side: FakeSide, backend: FakeBackend) -> None:
        await source.pause()
        side._cont = lambda: {}  # type: ignore[method-assign]
        with pytest.raises(StandsStillError, match="QEMU says 'paused', and stays so"):
            await source.resume()

    leave(tmp_path, resume)


def test_qemu_that_refuses_to_run_until_it_is_done(tmp_path: Path) -> None:
    """Its migration was cancelled, and it is not at the end of that yet."""
    refusals = [GuestError("not yet")] * 2

    async def resume(source: Source, side: FakeSide, backend: FakeBackend) -> None:
        assert await source.runs()
        side._stop()
        whole = side._cont

        def cont() -> dict[str, Any]:
            if refusals:
                raise refusals.pop()
            return whole()

        side._cont = cont  # type: ignore[method-assign]
        await source.resume()
        assert side.running

    leave(tmp_path, resume)
