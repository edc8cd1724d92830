"""A guest that arrives from another host: `Guest.receive`, `qemu-sdei receive`.

`Arrival` waits in a run directory of the guest's name. `_Attempt` is what this host makes of one attempt; after one
that failed everything of it is gone, and the next may come.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qemu_sdei import guest_identity, paths
from qemu_sdei import rundir as files
from qemu_sdei.config import RAM_BASE
from qemu_sdei.errors import GuestError, GuestTimeoutError, LaunchError, SdeiError, UsageError
from qemu_sdei.guest.placement import Placement, PlacementBuilder, Ram, unwritable, window
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.start import SHOWN
from qemu_sdei.migration.offer_check import Allowed, Considered, consider
from qemu_sdei.migration.receiver import Reception
from qemu_sdei.migration.receiver_session import File
from qemu_sdei.migration.remote_address import Tls, is_loopback, joined, listen_tcp, listen_unix, split
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.console_end import Sink
from qemu_sdei.vm.event_loop import EventLoop
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.resets import Resets
from qemu_sdei.vm.supervisor import Supervisor

SOCKET: Final = "receive.sock"
WAIT: Final = 3600.0
"""Seconds to wait for a guest."""
_STOP: Final = 20.0

ArrivalEvent = Callable[[str, dict[str, Any]], None]
"""Is told what happens: (waiting | arriving | failed | running, what about it)."""


def no_event(_state: str, _about: dict[str, Any]) -> None:
    """An `ArrivalEvent` that says nothing."""


@dataclass(frozen=True)
class Listening:
    """Where and for whom to listen. The default: `receive.sock` in the run directory, for this user."""

    tcp: tuple[str, int] | None = None
    tls: Tls | None = None
    unix: Path | None = None
    allow: tuple[str, ...] = ()
    """What a guest of somebody else may use: directories and files, "net", "qemu-args"."""

    @classmethod
    def of(cls, listen: str | None, tls: Tls | None, unix: str | Path | None, allow: tuple[str, ...]) -> Listening:
        """From options. Raises `UsageError`: they contradict each other."""
        if listen is not None and unix is not None:
            raise UsageError("--listen and --unix were both given: give one of them")
        if listen is None and tls is not None:
            raise UsageError("TLS is for --listen ADDRESS:PORT")
        if listen is None and allow:
            raise UsageError(
                "--allow is for --listen: who comes through a unix socket is you, and may have what you may"
            )
        tcp = None if listen is None else split(listen)
        if tcp is not None and tls is None and not is_loopback(tcp[0]):
            raise UsageError(
                f"{tcp[0]} is not loopback: give --tls-cert, --tls-key and --tls-ca, or wait without --listen, for ssh"
            )
        path = None if unix is None else paths.absolute(unix)
        if path is not None:
            files.check_socket_path(path, "use a shorter one")
        return cls(tcp, tls, path, allow)


class _WaitingDirectory(RunDirectory):
    """A run directory that outlives a guest which did not arrive."""

    kept = True

    def remove(self) -> None:
        """Remove what is in it, but for the lock and our socket; once a guest is here, all of it."""
        if not self.kept:
            super().remove()
            return
        with contextlib.suppress(OSError):
            for entry in self.path.iterdir():
                if entry.name not in (files.LOCK, SOCKET):
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


class _Attempt:
    """What this host makes of the guest that arrives; a `receiver_session.Host`."""

    def __init__(
        self, own: GuestOptions, directory: RunDirectory, allowed: Allowed, console: Console, sink: Sink | None
    ) -> None:
        """`own`: options of this host; `sink`: who looks on."""
        self.ram_fd = -1
        self.ram_size = 0
        self.window = range(0)
        self.guest: Considered | None = None
        self.builder = PlacementBuilder()
        self.builder.directory = directory
        self._own, self._directory, self._allowed, self._text, self._sink = own, directory, allowed, console, sink
        self._printed: list[bytes] = []

    def consider(self, offer: dict[str, Any]) -> dict[str, File]:
        """See `offer_check`."""
        self.guest = consider(offer, self._own, self._directory.path, self._directory.name, self._allowed)
        room = shutil.disk_usage(self._directory.path).free
        wanted = sum(file.size for file in self.guest.needed.values())
        if wanted > room:
            raise UsageError(f"{self._directory.path} has {room >> 20}M free, the guest's files need {wanted >> 20}M")
        return dict(self.guest.needed)

    async def prepare(self, identity: str) -> Supervisor:
        """Start QEMU and the backend."""
        assert self.guest is not None
        plan, config, monitor = await asyncio.to_thread(self.guest.build)
        ram = self.builder.ram = Ram.create(plan.ram_size, self.guest.options.memory_path)
        self.ram_fd, self.ram_size = ram.fd, ram.size
        addresses = window(ram.size, config.nr_cpus)
        self.window = range(addresses.start - RAM_BASE, addresses.stop - RAM_BASE)
        self.builder.configure(config)
        self.builder.write(files.MONITOR, monitor)
        try:
            guest_identity.write(self._directory.path, identity)
        except OSError as error:
            raise unwritable(self._directory.path, error) from None
        supervisor = self.builder.supervise(plan, self._text, self.guest.nonce or "", arriving=True)
        supervisor.attach(self._sink)
        try:
            await supervisor.start(self._own.start_timeout)
        except LaunchError as error:
            raise SdeiError(f"{error.message} {error.output.strip()}") from None
        return supervisor

    def console(self, data: bytes) -> None:
        """Kept until the guest is as good as here."""
        self._printed.append(data)

    def history(self, resets: list[dict[str, Any]], count: int, typed: bytes) -> None:
        """Take over what was printed and typed."""
        supervisor = self.builder.supervisor
        assert supervisor is not None
        data = b"".join(self._printed)
        with contextlib.suppress(OSError):
            (self._directory / files.CONSOLE_LOG).write_bytes(data)
        self._text.recall(data, reset_at=max((entry["position"] for entry in resets), default=-1))
        if self._sink is not None:
            self._sink(data[-SHOWN:])
        end = self._text.end
        with self._text.changed:
            known = ({**entry, "position": min(entry["position"], end)} for entry in resets)
            supervisor.resets = Resets(known, count)
        supervisor.write(typed)

    async def abandon(self) -> None:
        """End what there is of it; the next may come."""
        supervisor, self.builder.supervisor = self.builder.supervisor, None
        if supervisor is not None:
            await supervisor.abandon()
        if self.builder.ram is not None:
            self.builder.ram.close()
            self.builder.ram = None
        self._directory.remove()
        self.ram_fd = -1
        self.guest = None
        self._printed = []


class Arrival:
    """It arrives from another host; a `start.Beginning`."""

    def __init__(self, listening: Listening, *, timeout: float = WAIT, event: ArrivalEvent = no_event) -> None:
        """`timeout`: seconds to wait for it; `event` is told what happens, in another thread."""
        self._listening = listening
        self._timeout = timeout
        self._event = event
        self._none = PlacementBuilder()
        self._directory: _WaitingDirectory | None = None
        self._attempt: _Attempt | None = None
        self._reception: Reception | None = None
        self._server: asyncio.Server | None = None
        self._closing: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[Any] | None = None

    @property
    def builder(self) -> PlacementBuilder:
        """See `Beginning`."""
        return self._none if self._attempt is None else self._attempt.builder

    @property
    def here(self) -> bool:
        """The guest runs here, whatever becomes of the source."""
        reception = self._reception
        return reception is not None and reception.arrived.done() and not reception.arrived.cancelled()

    def begin(self, record: GuestRecord, loop: EventLoop) -> Placement:
        """See `Beginning`: wait until it has arrived."""
        directory = _WaitingDirectory.create(record.options.name)
        assert isinstance(directory, _WaitingDirectory)
        self._directory = directory
        loop.start(f"guest {directory.name}")
        attempt = loop.call(self._wait(record, directory), self._timeout + _STOP)
        assert attempt.guest is not None
        record.arrived(attempt.guest.options, attempt.guest.nonce)
        directory.kept = False
        if attempt.builder.supervisor is not None:
            attempt.builder.supervisor.attach(record.onlookers)
        return attempt.builder.done()

    def begun(self) -> None:
        """It can be asked for now."""
        assert self._directory is not None
        self._event("running", {"name": self._directory.name})

    async def _wait(self, record: GuestRecord, directory: RunDirectory) -> _Attempt:
        """Listen until a guest has arrived."""
        self._waiting = asyncio.current_task()
        listening = self._listening
        allowed = Allowed.of(list(listening.allow), everything=listening.tcp is None)
        attempt = self._attempt = _Attempt(record.options, directory, allowed, record.console, record.onlookers)
        token = secrets.token_urlsafe(24) if listening.tcp is not None and listening.tls is None else ""
        reception = self._reception = Reception(attempt, token, lambda state, what: self._event(state, {"what": what}))
        about: dict[str, Any] = {"name": directory.name}
        if listening.tcp is not None:
            host, port = listening.tcp
            self._server, port = await listen_tcp(host, port, listening.tls, reception.accept)
            about["listen"] = ("tcp://" if listening.tls is None else "tls://") + joined(host, port)
        else:
            path = listening.unix or directory / SOCKET
            self._server = await listen_unix(path, reception.accept)
            about["socket"] = str(path)
        self._event("waiting", about | ({"token": token} if token else {}))
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.shield(reception.arrived)
        except TimeoutError:
            raise GuestTimeoutError(f"no guest has arrived within {self._timeout:g} s") from None
        except asyncio.CancelledError:
            if not reception.arrived.cancelled():
                raise
            raise GuestError("nobody waits for the guest any more") from None
        self._closing = asyncio.create_task(self._close_later())
        return attempt

    async def _close_later(self) -> None:
        """The source may still want to know what became of its guest."""
        assert self._reception is not None
        try:
            await self._reception.known.wait()
        finally:
            await self._stop_listening()

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            if self._listening.unix is not None:
                self._listening.unix.unlink(missing_ok=True)
            elif self._listening.tcp is None and self._directory is not None and self._directory.held:
                (self._directory / SOCKET).unlink(missing_ok=True)
        if self._reception is not None:
            await self._reception.close()

    async def _end(self) -> None:
        if self._reception is not None:
            self._reception.arrived.cancel()
        if self._waiting is not None:
            await asyncio.wait({self._waiting}, timeout=_STOP)  # another thread hears of it
        if self._closing is not None:
            self._closing.cancel()
            await asyncio.gather(self._closing, return_exceptions=True)
        await self._stop_listening()
        if self._attempt is not None and self._attempt.builder.directory is not None:
            await self._attempt.abandon()

    def undo(self, loop: EventLoop) -> None:
        """See `Beginning`: end the wait, whichever thread has that."""
        loop.call(self._end(), _STOP)

    def discard(self) -> None:
        """See `Beginning`."""
        if self._directory is not None:
            self._directory.kept = False
            if self._attempt is None or self._attempt.builder.directory is not None:
                self._directory.remove()
