"""A destination on another host, told by messages what to do at each step.

    sequence                                receiver (receiver_session.py)
    prepare: hello                   --->   who is it?
             offer: machine, options --->   checks all of it; says which files it has not
             files                   --->
             prepare                 --->   QEMU and backend start
             console                 --->
    send, switchover  == ram channels ==>   its QEMU takes RAM and devices
    check: document                  --->   the backend checks it
    arrived                          --->
    verify, hashes, repair           --->   RAM compared and repaired
    restore                          --->   the backend takes the guest over
    console, history                 --->
    go                               --->   QMP cont       <- from here on there is no way back
                                     <---   running
    confirm: bye                     --->

When the connection breaks between `go` and its answer, nobody here can know whether the guest runs there. It is asked
for by a new connection; without an answer the guest is paused here, and its user decides (`UndecidedError`).
docs/reference/migration-protocol.md
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from qemu_sdei import guest_identity, rundir
from qemu_sdei.errors import GuestError, ProtocolError, SdeiError
from qemu_sdei.migration import remote_ram
from qemu_sdei.migration.failure_points import UndecidedError
from qemu_sdei.migration.offer import Offer
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
from qemu_sdei.migration.source import Side

T = TypeVar("T")

_SOCKET: Final = "leaving.sock"
_START: Final = 180.0
"""Seconds that the destination may take to start QEMU and the backend; its own limit is shorter."""
_ALIVE: Final = 5.0
_INQUIRE: Final = 20.0
"""Seconds for which it is tried to ask what became of the guest."""
_PART: Final = 1 << 20


@dataclass(frozen=True)
class RemoteResult(MigrationResult):
    """Result of a migration to another host. The clocks of two hosts differ, so each duration is measured on one host.
    `guest_downtime_ms` is a sum: the part at the source and the part at the destination, without the time of the
    message between them.
    """

    host: str = ""
    """The destination, as `migrate_to` was given it."""
    files_sent: int = 0
    """Bytes of kernel, initrd and other files that the destination did not have."""
    destination_start_ms: float = 0.0
    """Time in which QEMU and the backend started there, by the destination's clock."""
    destination_restore_ms: float = 0.0
    """Time in which the backend took the guest over, by the destination's clock."""


@dataclass
class RemoteDestination:
    """A `sequence.Destination` on another host."""

    source: Side
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
    name: str = field(default="", init=False)
    """The guest's name there, after `prepare`."""
    _peer: Link | None = field(default=None, init=False)
    _channels: asyncio.Server | None = field(default=None, init=False)
    _session: str = field(default="", init=False)
    _sent: int = field(default=0, init=False)
    """Bytes of files."""
    _console: int = field(default=0, init=False)
    """Bytes of the console's log that are there."""
    _start_ms: float = field(default=0.0, init=False)
    _restore_ms: float = field(default=0.0, init=False)
    _failure: str = field(default="", init=False)
    """Why a connection for RAM could not be made."""
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set, init=False)

    @property
    def whereabouts(self) -> tuple[str, str]:
        """Its name and host; its control socket cannot be reached from here."""
        return f"{self.name} at {self.address}", ""

    @property
    def _link(self) -> Link:
        assert self._peer is not None
        return self._peer

    async def prepare(self, *, early: bool) -> str:
        """Connect, offer the guest, send the files that are asked for, and have QEMU and the backend started."""
        self.report(Step("connect"))
        peer = self._peer = await connect(self.address)
        try:
            await greet(peer, CONTROL, self.address.token, SILENCE)
        except LostPeerError as error:
            # TLS 1.3 tells a client only now what becomes of its certificate, or hangs up.
            perhaps = "; perhaps it does not take this side's certificate" if self.address.tls is not None else ""
            raise LostPeerError(f"{error}{perhaps}") from None
        self._sent = await self._furnish(peer)
        self.report(Step("start"))
        ready = await peer.ask(
            "prepare",
            timeout=_START,
            route=self.options.route,
            multifd=self.options.multifd,
            identity=guest_identity.read(self.source.path),
        )
        self.name, self._session = _text(ready, "name"), _text(ready, "session")
        self._start_ms = _number(ready, "ms")
        await self._send_console(peer)
        return await self._open_channels()

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
        with contextlib.suppress(OSError), (self.source.path / rundir.CONSOLE_LOG).open("rb") as log:
            log.seek(self._console)
            while part := log.read(_PART):
                self._console += len(part)
                await peer.send({"cmd": "console"}, part)
                await peer.answer()

    async def _open_channels(self) -> str:
        """A socket for QEMU from which connections of ours lead to the other side's QEMU. Returns its URI."""
        one_by_one = asyncio.Lock()  # QEMU takes its main channel to be the first that arrives

        async def accept(qemu: Link) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            async with one_by_one:
                try:
                    channel = await connect(self.address)
                    await greet(channel, RAM, self._session, SILENCE)
                except SdeiError as error:
                    self._failure = f": {error}"
                    qemu.abort()
                    return
            await splice((qemu.reader, qemu.writer), (channel.reader, channel.writer))

        path = self.source.path / _SOCKET
        self._channels = await listen_unix(path, accept)
        return f"unix:{path}"

    def _close_channels(self) -> None:
        """Take no further connection of QEMU's; those that there are stay."""
        channels, self._channels = self._channels, None
        if channels is not None:
            channels.close()
            (self.source.path / _SOCKET).unlink(missing_ok=True)

    async def attend(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`, and ask the other side meanwhile whether it is still there."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=_ALIVE))[0]:
                await self._link.ask("alive")
            return task.result()
        except GuestError as error:
            raise GuestError(f"{error}{self._failure}") from None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def compare_early(self) -> bool:
        """Postcopy is not for another host."""
        return False

    async def check(self, document: Path) -> None:
        """Send the document; the backend checks it."""
        state = await asyncio.to_thread(document.read_bytes)
        await self._link.send({"cmd": "document"}, state)
        await self._link.answer()

    async def arrived(self, *, postcopy: bool) -> None:
        """Wait until QEMU has taken the guest."""
        self._close_channels()
        await self._link.ask("arrived")

    async def verify(self) -> int:
        """Compare RAM by hashes, and repair it."""
        self.report(Step("verify"))
        return await remote_ram.verify(self._link, self.ram_fd, self.ram_size)

    async def restore(self, *, postcopy: bool) -> None:
        """Have the backend take the guest over."""
        self._restore_ms = _number(await self._link.ask("restore"), "ms")

    async def take_history(self) -> None:
        """Send what the console has more, the resets, and what was typed and not read."""
        await self._send_console(self._link)
        typed = self.typed()
        await self._link.send({"cmd": "history", **self.resets()}, typed)
        await self._link.answer()

    async def go(self, *, running: bool) -> int:
        """Tell the other side to go on. When its answer does not come, ask by another connection what became of it."""
        self.let_go(str(self.address))
        go_ns = time.perf_counter_ns()
        try:
            await self._link.ask("go", running=running)
        except RefusedError as error:
            raise GuestError(f"the destination could not go on: {error}") from None
        except SdeiError as error:
            self.report(Step("inquire"))
            outcome = await self._inquire()
            if outcome == "ended":
                raise GuestError(f"the destination has cancelled: {error}") from None
            if outcome != "running":
                raise UndecidedError(
                    f"the connection broke ({error}) after {self.address} was told to resume the guest, and it "
                    "does not say whether it did. The guest is paused here. Look there (`qemu-sdei list`): if it is "
                    f"not there, `qemu-sdei migrate {self.source.name} --resume` resumes it here; if it is, end this "
                    "one"
                ) from None
        return go_ns

    async def _inquire(self) -> str:
        deadline = time.monotonic() + _INQUIRE
        while time.monotonic() < deadline:
            link = None
            with contextlib.suppress(SdeiError):
                link = await connect(self.address)
                return clean((await greet(link, OUTCOME, self._session, _INQUIRE)).get("outcome"))
            if link is not None:
                link.abort()
            await asyncio.sleep(0.5)
        return "unknown"

    async def confirm(self, *, expected: bool) -> float | None:
        """Say that its running there is known here."""
        answer = await self._link.ask("bye", timeout=_ALIVE)
        return None if answer.get("ran_ms") is None else _number(answer, "ran_ms")

    async def fetched(self, timeout: float) -> bool:
        """Postcopy is not for another host."""
        return False

    async def complete(self) -> None:
        """Postcopy is not for another host."""

    async def abandon(self) -> None:
        """Nothing: it ends what it has when the connection ends, and runs the guest only after `go`."""
        self._close_channels()

    async def close(self) -> None:
        """Hang up."""
        self._close_channels()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._peer is not None:
            self._peer.abort()

    def result(self, result: MigrationResult) -> RemoteResult:
        """With what is only known of another host."""
        return RemoteResult(
            **{
                **vars(result),
                "route": self.address.kind,
                "host": str(self.address),
                "files_sent": self._sent,
                "destination_start_ms": self._start_ms,
                "destination_restore_ms": self._restore_ms,
            }
        )


def _text(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise ProtocolError("an answer is not of the protocol's form")
    return clean(value)


def _number(answer: dict[str, Any], name: str) -> float:
    value = answer.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
