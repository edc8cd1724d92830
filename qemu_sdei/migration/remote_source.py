"""A guest leaves for another host. Until the destination was told to go on, the guest can go on here.

    source                                  destination (remote_destination.py)
    hello                            --->   who is it?
    offer: machine, options, files   --->   checks all of it; says which files it has not
    files                            --->
    prepare                          --->   QEMU (-incoming defer -S) and backend (--incoming) start
    QMP migrate   == ram channels ==>       its QEMU takes RAM (live: while the vCPUs run)
    the vCPUs stop; freeze -> document
    document                         --->   the backend checks it
    QMP migrate-continue   ========>        what is left of RAM, devices
    arrived                          --->
    verify, hashes, repair           --->   RAM compared and repaired
    restore                          --->   the backend takes the guest over
    console, history                 --->
    go                               --->   QMP cont       <- from here on there is no way back
                                     <---   running
    ends

When the connection breaks between `go` and its answer, nobody here can know whether the guest runs there. It is asked
for by a new connection; without an answer the guest stands still here, and its user decides (`UndecidedError`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, ProtocolError, SdeiError
from qemu_sdei.migration import remote_ram
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.options import MigrationOptions, MigrationResult, Report, Step
from qemu_sdei.migration.remote_address import Address, connect, listen_unix
from qemu_sdei.migration.remote_link import (
    CONTROL,
    OUTCOME,
    RAM,
    SILENCE,
    Link,
    LostPeerError,
    RefusedError,
    clean,
    greet,
    splice,
)
from qemu_sdei.migration.run_to_completion import finish
from qemu_sdei.migration.source import Side, Source

T = TypeVar("T")

_SOCKET: Final = "leaving.sock"
_START: Final = 180.0
"""Seconds that the destination may take to start QEMU and the backend; its own limit is shorter."""
_ALIVE: Final = 5.0
_INQUIRE: Final = 20.0
"""Seconds for which it is tried to ask what became of the guest."""
_PART: Final = 1 << 20


class UndecidedError(GuestError):
    """Whether the guest runs at the destination is not known: it stands still here until its user decides."""


@dataclass(frozen=True)
class RemoteResult(MigrationResult):
    """What came of a migration to another host. Clocks differ: each duration is of one side alone, but for
    `guest_downtime_ms`, which is the source's share and the destination's, without the way of the word between them.
    """

    host: str = ""
    """Where it is now, as it was asked for."""
    files_sent: int = 0
    """Bytes of kernel, initrd and the like that the destination had not."""
    destination_start_ms: float = 0.0
    """How long QEMU and the backend took to start there, by its clock."""
    destination_restore_ms: float = 0.0
    """How long the backend took to take the guest over, by its clock."""


@dataclass(frozen=True)
class Offer:
    """What the destination must know before anything is stopped."""

    facts: dict[str, Any]
    """JSON: see docs/reference/migration-protocol.md."""
    files: dict[str, Path]
    """By role; each is in `facts["files"]` too, with size and hash."""


@dataclass
class Departure:
    """One departure. `run` once; after an `UndecidedError`, `take_back` or nothing."""

    side: Side
    address: Address
    offer: Offer
    options: MigrationOptions
    report: Report
    ram_fd: int
    ram_size: int
    resets: Callable[[], dict[str, Any]]
    """The guest's resets, as fields of `history`."""
    typed: Callable[[], bytes]
    """Takes what was typed and the guest has not read."""
    let_go: Callable[[str], object]
    """Notes where the guest may be, for whoever adopts it should this process die."""
    _console: int = 0
    _failure: str = ""
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def run(self) -> RemoteResult:
        """Move the guest. When this returns, it runs there, and must be ended here.

        Raises:
            UndecidedError: see there. `SdeiError`: it did not work, and the guest goes on here.
        """
        link = await BackendLink.open(self.side.path / rundir.CONTROL)
        self._leaving = leaving = Source(self.side, link, self.options.hold, self.report, self.options.timeout)
        peer: Link | None = None
        undecided = False
        try:
            if not self.options.live:
                await leaving.reach_hold_point()
            begin = time.monotonic()
            self.report(Step("connect"))
            peer = await connect(self.address)
            try:
                await greet(peer, CONTROL, self.address.token, SILENCE)
            except LostPeerError as error:
                # TLS 1.3 tells a client only now what becomes of its certificate, or hangs up.
                perhaps = "; perhaps it does not take this side's certificate" if self.address.tls is not None else ""
                raise LostPeerError(f"{error}{perhaps}") from None
            sent = await self._furnish(peer)
            self.report(Step("start"))
            ready = await peer.ask(
                "prepare",
                timeout=_START,
                route=self.options.route,
                multifd=self.options.multifd,
                identity=rundir.identity(self.side.path),
            )
            name, session = _text(ready, "name"), _text(ready, "session")
            await self._send_console(peer)
            try:
                async with self._channels(session) as uri:
                    running, stopped, document, info = await self._send(peer, link, uri)
                await peer.ask("arrived")
                differing = None
                if self.options.verify:
                    self.report(Step("verify"))
                    differing = await remote_ram.verify(peer, self.ram_fd, self.ram_size)
                self.report(Step("restore"))
                restored = await peer.ask("restore")
                await self._send_console(peer)
                typed = self.typed()
                await peer.send({"cmd": "history", **self.resets()}, typed)
                await peer.answer()
                self.let_go(str(self.address))
                gone_ns = time.perf_counter_ns()
                await finish(self._go(peer, running, session))
            except UndecidedError:
                undecided = True
                raise
            except BaseException:
                await finish(leaving.go_on())
                raise
            # From here on the guest is there, and nothing leads back.
            now = time.monotonic()
            ran_ms = await finish(self._make_known(peer, link, name))
            downtime = None
            if leaving.sign_ns is not None and ran_ms is not None:
                downtime = (gone_ns - leaving.sign_ns) / 1e6 + ran_ms
        finally:
            await finish(self._hang_up())
            if peer is not None:
                peer.abort()
            if not undecided:
                link.close()
        return RemoteResult(
            source=self.side.name,
            destination=name,
            route=self.address.kind,
            total_ms=1000 * (now - begin),
            pause_ms=1000 * (now - stopped),
            guest_downtime_ms=downtime,
            qemu_downtime_ms=int(info.get("downtime", 0)),
            qemu_total_ms=int(info.get("total-time", 0)),
            transferred=int(info.get("ram", {}).get("transferred", 0)),
            document=document,
            pages_differing=differing,
            host=str(self.address),
            files_sent=sent,
            destination_start_ms=_number(ready, "ms"),
            destination_restore_ms=_number(restored, "ms"),
            passes=int(info.get("ram", {}).get("dirty-sync-count", 0)) if self.options.live else 0,
        )

    async def _hang_up(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _make_known(self, peer: Link, link: BackendLink, name: str) -> float | None:
        """These only say where it is: what counts is done. Returns how long after `go` it was seen to run there."""
        with contextlib.suppress(SdeiError):
            await link.request("moved", name=f"{name} at {self.address}", control="")
        with contextlib.suppress(SdeiError):
            answer = await peer.ask("bye", timeout=_ALIVE)
            if answer.get("ran_ms") is not None:
                return _number(answer, "ran_ms")
        return None

    async def take_back(self) -> None:
        """After an `UndecidedError`: the guest goes on here. Whoever asks for it knows that it does not run there."""
        await self._leaving.go_on()

    async def _furnish(self, peer: Link) -> int:
        """Offer the guest, and send the files that are asked for. Returns their bytes."""
        needed = (await peer.ask("offer", **self.offer.facts)).get("need")
        if not isinstance(needed, list) or any(role not in list(self.offer.files) for role in needed):
            raise ProtocolError("the answer to the offer is not of the protocol's form")
        sizes = {role: int(self.offer.facts["files"][role]["size"]) for role in needed}
        total, done = sum(sizes.values()), 0
        for role, size in sizes.items():
            self.report(Step("files", done, total))
            path = self.offer.files[role]
            try:
                await peer.send_file({"cmd": "file", "role": role}, path, size)
            except OSError as error:
                raise GuestError(f"{path} cannot be read: {error.strerror}") from None
            await peer.answer()
            done += size
        return total

    async def _send_console(self, peer: Link) -> None:
        """What the console's log has more than at the last time."""
        with contextlib.suppress(OSError), (self.side.path / rundir.CONSOLE_LOG).open("rb") as log:
            log.seek(self._console)
            while part := log.read(_PART):
                self._console += len(part)
                await peer.send({"cmd": "console"}, part)
                await peer.answer()

    async def _send(self, peer: Link, link: BackendLink, uri: str) -> tuple[bool, float, int, dict[str, Any]]:
        """Have QEMU send the guest. Returns whether the vCPUs ran, when they were stopped, the bytes of the document,
        and what QEMU says.
        """
        leaving, options = self._leaving, self.options
        if not options.live:
            await leaving.prepare(options)
            await leaving.watch(live=False)
            stopped = time.monotonic()
            running, document = await leaving.stand_still()
            await self._send_document(peer)
            return running, stopped, document, await self._beating(peer, leaving.transfer(uri, options))
        boots = await _boots(link)
        running = await leaving.runs()  # before: with little to send, QEMU stops the vCPUs at once
        await leaving.watch(live=True)
        await self._beating(peer, leaving.begin(uri, options))
        stopped = await self._beating(peer, leaving.converge(postcopy=False))
        document = await leaving.switch_over()
        if await _boots(link) != boots and not options.verify:
            # What is loaded at a reset QEMU does not see being written.
            raise GuestError("the guest was reset while its RAM was being sent, and RAM is not to be compared")
        await self._send_document(peer)
        return running, stopped, document, await self._beating(peer, leaving.complete(postcopy=False))

    async def _send_document(self, peer: Link) -> None:
        """The destination's backend checks it before anything cannot be taken back."""
        state = await asyncio.to_thread((self.side.path / rundir.STATE).read_bytes)
        await peer.send({"cmd": "document"}, state)
        await peer.answer()

    async def _beating(self, peer: Link, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`, in which QEMU sends, and see meanwhile that the other side is still there."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=_ALIVE))[0]:
                await peer.ask("alive")
            return task.result()
        except GuestError as error:
            raise GuestError(f"{error}{self._failure}") from None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _channels(self, session: str) -> AsyncIterator[str]:
        """A socket for QEMU from which connections of ours lead to the other side's QEMU; gives its URI."""
        one_by_one = asyncio.Lock()  # QEMU takes its main channel to be the first that arrives

        async def accept(qemu: Link) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            async with one_by_one:
                try:
                    channel = await connect(self.address)
                    await greet(channel, RAM, session, SILENCE)
                except SdeiError as error:
                    self._failure = f": {error}"
                    qemu.abort()
                    return
            await splice((qemu.reader, qemu.writer), (channel.reader, channel.writer))

        path = self.side.path / _SOCKET
        server = await listen_unix(path, accept)
        try:
            yield f"unix:{path}"
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def _go(self, peer: Link, running: bool, session: str) -> None:
        try:
            await peer.ask("go", running=running)
        except RefusedError as error:
            raise GuestError(f"the destination could not go on: {error}") from None
        except SdeiError as error:
            self.report(Step("inquire"))
            outcome = await self._inquire(session)
            if outcome == "running":
                return
            if outcome == "ended":
                raise GuestError(f"the destination has given up: {error}") from None
            raise UndecidedError(
                f"the connection broke ({error}) after {self.address} was told to go on with the guest, and it does "
                "not say whether it did. The guest stands still here. Look there (`qemu-sdei list`): if it is not "
                f"there, `qemu-sdei migrate {self.side.name} --resume` has it go on here; if it is, end this one"
            ) from None

    async def _inquire(self, session: str) -> str:
        deadline = time.monotonic() + _INQUIRE
        while time.monotonic() < deadline:
            link = None
            with contextlib.suppress(SdeiError):
                link = await connect(self.address)
                return clean((await greet(link, OUTCOME, session, _INQUIRE)).get("outcome"))
            if link is not None:
                link.abort()
            await asyncio.sleep(0.5)
        return "unknown"


async def _boots(link: BackendLink) -> int:
    return int((await link.request("hello"))["epoch"])


def _text(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise ProtocolError("an answer is not of the protocol's form")
    return clean(value)


def _number(answer: dict[str, Any], name: str) -> float:
    value = answer.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
