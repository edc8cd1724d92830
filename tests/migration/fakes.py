"""A guest that moves, without QEMU: both sides, and a place at which something happens.

`Trip` is that place: each side asks it before it does a thing, and it raises, or waits, at one of them. `FakeSide` is a
QEMU that knows the states of a migration, `FakeBackend` a backend at a real control socket, `FakeDestination` what a
`sequence.Destination` must be. The guest runs at one side at most: each of them looks before it runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, SdeiError, UnreachableError
from qemu_sdei.migration.options import MigrationResult
from qemu_sdei.migration.source import Side

T = TypeVar("T")

LIMIT = 20.0
HEARTBEAT_NS = 1_000_000
KINDS = {"UsageError": "usage", "NotDeliveredError": "state", "BusyError": "busy"}


class Trip:
    """At `place`, the `nth` time that it is come by: raise `error`, or without one wait for `release`."""

    def __init__(self, place: str = "", error: BaseException | None = None, nth: int = 1) -> None:
        self.place, self.error = place, error
        self.passed: list[str] = []
        """Where it was come by."""
        self.reached = asyncio.Event()
        self.release = asyncio.Event()
        self.look: Callable[[], None] = lambda: None
        """Called at each place."""
        self._left = nth

    async def at(self, place: str) -> None:
        """Come by at `place`."""
        self.passed.append(place)
        self.look()
        if place != self.place:
            return
        self._left -= 1
        if self._left:
            return
        self.reached.set()
        if self.error is not None:
            raise self.error
        await self.release.wait()


class FakeBackend:
    """A backend: answers what is asked where a guest leaves, or arrives."""

    def __init__(self, path: Path, trip: Trip, *, who: str = "backend") -> None:
        self.path = path / rundir.CONTROL
        self.trip = trip
        self.who = who
        self.boots = 1
        self.frozen = False
        self.clients = 0
        self.told: list[dict[str, Any]] = []
        """What clients were told."""
        self._server: asyncio.Server | None = None
        self._full: list[socket.socket] = []

    async def open(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    def open_full(self) -> None:
        """As a backend that is stopped: its queue is full, and nobody takes a connection."""
        listener = socket.socket(socket.AF_UNIX)
        self._full.append(listener)
        listener.bind(str(self.path))
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = socket.socket(socket.AF_UNIX)
                self._full.append(client)
                client.setblocking(False)
                client.connect(str(self.path))

    def close(self) -> None:
        """Take no connections."""
        for each in self._full:
            each.close()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients += 1
        mine = False
        try:
            while line := await reader.readline():
                message = json.loads(line)
                answer = {"id": message["id"], "ok": True, "result": {}}
                try:
                    await self.trip.at(f"{self.who} {message['cmd']}")
                    answer["result"] = self._do(message)
                except ConnectionError:
                    break
                except SdeiError as error:
                    kind = KINDS.get(type(error).__name__, "other")
                    answer = {"id": message["id"], "ok": False, "error": {"kind": kind, "message": str(error)}}
                mine = mine or message["cmd"] == "freeze"
                writer.write(json.dumps(answer).encode() + b"\n")
        finally:
            self.clients -= 1
            if mine:
                self.frozen = False
            writer.close()

    def _do(self, message: dict[str, Any]) -> dict[str, Any]:
        command = message["cmd"]
        if command == "hello":
            return {"epoch": self.boots}
        if command == "freeze":
            self.frozen = True
            (self.path.parent / rundir.STATE).write_text("{}")
            return {"bytes": 2, "sign_ns": HEARTBEAT_NS}
        if command == "moved":
            self.told.append(message)
        if command == "first-sign":
            return {"sign_ns": time.perf_counter_ns()}
        return {}


class FakeSide:
    """One QEMU, with what its supervisor keeps of the guest; a `Side`."""

    def __init__(self, path: Path, trip: Trip, *, running: bool = True, who: str = "qmp") -> None:
        self.path = path
        self.trip = trip
        self.who = who
        self.running = running
        self.other: Callable[[], bool] = lambda: False
        """Whether the guest runs at the other side."""
        self.leaving = False
        self.resumed = False
        self.heard: list[str] = []
        self.refuses_cont = False
        """As QEMU does once the destination has begun a postcopy."""
        self.killed = False
        self.answers_cont = True
        """False: it runs, and the answer is lost, with the connection."""
        self.lets_go_on = False
        """The same, of a QEMU that goes on all the same."""
        self.gone: GuestError | None = None
        """QMP cannot be used."""
        self.came_from: FakeSide | None = None
        """The source's QEMU; for a destination."""
        self.received = bytearray()
        """What came by a socket that it listens at."""
        self.was_given_back = False
        self._state = "running" if running else "paused"
        self._was_running = running
        self._migration = "none"
        self._pauses = self._postcopy = False

    @property
    def name(self) -> str:
        """The guest's name there."""
        return self.path.name

    async def execute(self, command: str, arguments: dict[str, object]) -> object:
        """QMP, as far as a migration needs it."""
        self.heard.append(command)
        await self.trip.at(f"{self.who} {command}")
        if self.gone is not None:
            raise self.gone
        do = getattr(self, "_" + command.replace("-", "_"), None)
        if do is None:
            return {}
        answer = do(**{name.replace("-", "_"): value for name, value in arguments.items()})
        return await answer if asyncio.iscoroutine(answer) else answer

    def _set(self, *, running: bool, state: str = "") -> None:
        assert not (running and self.other()), "the guest runs at both sides"
        self.running = running
        self._state = state or ("running" if running else "paused")

    def _query_version(self) -> dict[str, Any]:
        return {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": "fake"}

    def _query_status(self) -> dict[str, Any]:
        return {"status": self._state}

    def _stop(self) -> dict[str, Any]:
        self._set(running=False)
        return {}

    def _cont(self) -> dict[str, Any]:
        if self.refuses_cont:
            raise GuestError("QEMU says: the guest has gone")
        self._set(running=True)
        if not self.answers_cont:
            self.gone = UnreachableError("QMP has broken")
            raise self.gone
        return {}

    async def kill(self) -> None:
        """End QEMU."""
        self.killed = True
        self._set(running=False, state="shutdown")

    def _quit(self) -> dict[str, Any]:
        self._set(running=False, state="shutdown")
        return {}

    def _migrate_set_capabilities(self, capabilities: list[dict[str, Any]]) -> dict[str, Any]:
        states = {each["capability"]: each["state"] for each in capabilities}
        self._pauses, self._postcopy = states["pause-before-switchover"], states["postcopy-ram"]
        return {}

    async def _migrate_incoming(self, uri: str) -> dict[str, Any]:
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.received += await reader.read()
            writer.close()

        if uri.startswith("unix:"):
            await asyncio.start_unix_server(take, uri.removeprefix("unix:"))
        return {}

    async def _migrate(self, uri: str) -> dict[str, Any]:
        if uri.startswith("unix:"):
            _, writer = await asyncio.open_unix_connection(uri.removeprefix("unix:"))
            writer.write(b"QEVM")
            writer.close()
        self._was_running = self.running
        self._migration = "active"
        if not self._pauses:
            self._end()
        elif not self._postcopy:
            self._pause()
        return {}

    def _migrate_start_postcopy(self) -> dict[str, Any]:
        self._pause()
        return {}

    def _pause(self) -> None:
        self._migration = "pre-switchover"
        self._set(running=False, state="finish-migrate" if self._was_running else "paused")

    def _migrate_continue(self, state: str) -> dict[str, Any]:
        assert state == self._migration
        if self._postcopy:
            self._migration = "postcopy-active"
            self.refuses_cont = not self.lets_go_on
        else:
            self._end()
        return {}

    def _end(self) -> None:
        self._migration = "completed"
        self._set(running=False, state="postmigrate")

    def _query_migrate(self) -> dict[str, Any]:
        if self.came_from is not None:
            return {"status": self.came_from._migration}
        status = self._migration
        if status == "postcopy-active":
            self._migration = "completed"  # the next time
        numbers = {"total": 100, "remaining": 10, "transferred": 90, "dirty-sync-count": 3, "postcopy-requests": 2}
        return {"status": status, "ram": numbers, "downtime": 5, "total-time": 7}

    def _migrate_cancel(self) -> dict[str, Any]:
        if self._migration in ("active", "pre-switchover"):
            self._migration = "cancelled"
            if self._was_running:
                self._set(running=True)
        return {}

    def leaves(self) -> None:
        """The guest is being handed over."""
        self.leaving = True

    def stays(self) -> None:
        """It goes on here."""
        self.leaving, self.resumed = False, True

    async def start(self, timeout: float) -> None:
        """Start the processes; for a destination."""
        await self.trip.at(f"{self.who} start")

    async def pass_fd(self, name: str, fd: int) -> None:
        """Give QEMU a descriptor of ours."""
        await self.execute("getfd", {})

    async def last_words(self) -> str:
        """Why a QEMU that ended did not take the guest."""
        return ""

    async def inherit(self, source: Side) -> None:
        """The guest is about to go on here."""
        await self.trip.at(f"{self.who} inherit")

    def give_back(self) -> None:
        """It goes on at the source after all."""
        self.was_given_back = True


class FakeDestination:
    """What a `sequence.Destination` must be; the guest runs here once `go` has said so."""

    URI = "fd:fake"

    def __init__(self, trip: Trip, source: FakeSide, *, remote: bool = False) -> None:
        self.trip = trip
        self.source = source
        self.remote = remote
        self.name = "b"
        self.running = False
        self.abandoned = self.closed = self.whole = False
        self.comparable = True
        self.has_fetched = True
        """What `fetched` finds."""
        self.source.other = lambda: self.running

    @property
    def whereabouts(self) -> tuple[str, str]:
        """What clients are told."""
        return self.name, "/control"

    async def _at(self, place: str) -> None:
        assert not self.abandoned, "it was abandoned before"
        await self.trip.at(f"destination {place}")

    async def prepare(self, *, early: bool) -> str:
        """Be ready for the guest."""
        await self._at("prepare")
        return self.URI

    async def attend(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`."""
        return await work

    async def compare_early(self) -> bool:
        """Compare RAM in QEMU's pause."""
        await self._at("compare_early")
        return self.comparable

    async def check(self, document: Path) -> None:
        """Check the state document."""
        assert document.read_text() == "{}"
        await self._at("check")

    async def arrived(self, *, postcopy: bool) -> None:
        """The guest has arrived."""
        await self._at("arrived")

    async def verify(self) -> int:
        """Compare RAM."""
        await self._at("verify")
        return 4

    async def restore(self, *, postcopy: bool) -> None:
        """Take the guest over."""
        await self._at("restore")

    async def take_history(self) -> None:
        """Take the history; on this host that is part of `go`."""
        if self.remote:
            await self._at("take_history")

    async def go(self, *, running: bool) -> int:
        """Run the guest."""
        await self._at("go")
        assert not self.source.running, "the guest runs at both sides"
        self.running = running
        return HEARTBEAT_NS + 2_000_000

    async def confirm(self, *, expected: bool) -> float | None:
        """When it was seen to run."""
        await self._at("confirm")
        return 3.0 if expected else None

    async def fetched(self, timeout: float) -> bool:
        """Whether all RAM is there."""
        await self._at("fetched")
        return self.has_fetched

    async def complete(self) -> None:
        """All RAM is there."""
        await self._at("complete")
        self.whole = True

    async def abandon(self) -> None:
        """End it."""
        assert not self.source.resumed, "the source was resumed before"
        self.abandoned = True
        self.running = False

    async def close(self) -> None:
        """Let go of the connection."""
        self.closed = True

    def result(self, result: MigrationResult) -> MigrationResult:
        """As it is."""
        return result
