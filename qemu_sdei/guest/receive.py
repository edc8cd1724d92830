"""A guest that arrives from another host: `Guest.receive`, `qemu-sdei receive`.

`ReceivedGuest` waits in a run directory of the guest's name, and is an ordinary `Guest` from then on. `_Place` is what
this host makes of one attempt; after one that failed everything of it is gone, and the next may come.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from qemu_sdei import paths
from qemu_sdei import rundir as files
from qemu_sdei.config import RAM_BASE, GuestConfig
from qemu_sdei.errors import GuestError, GuestTimeoutError, LaunchError, SdeiError, UsageError
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.local_migration import Mover
from qemu_sdei.host import memory
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.migration.offer_check import Allowed, Considered, consider
from qemu_sdei.migration.remote_address import Tls, is_loopback, joined, listen_tcp, listen_unix, split
from qemu_sdei.migration.remote_destination import Reception
from qemu_sdei.migration.remote_session import File
from qemu_sdei.monitor import layout
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.vm import event_loop
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.options import CONTINUE, GuestOptions
from qemu_sdei.vm.plan import Plan
from qemu_sdei.vm.resets import Resets
from qemu_sdei.vm.supervisor import Supervisor

SOCKET: Final = "receive.sock"
WAIT: Final = 3600.0
"""Seconds to wait for a guest."""
_STOP: Final = 20.0
_SHOWN: Final = 4096
"""Bytes of what was printed before that whoever looks on is shown."""

Event = Callable[[str, dict[str, Any]], None]
"""Is told what happens: (waiting | arriving | failed | running, what about it)."""


def no_event(_state: str, _about: dict[str, Any]) -> None:
    """An `Event` that says nothing."""


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


def window_offsets(ram_size: int, nr_cpus: int) -> range:
    """Where in RAM the frame window is."""
    base = layout.window_base(RAM_BASE, ram_size)
    return range(base - RAM_BASE, layout.frame_end(base, nr_cpus) - RAM_BASE)


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


class _Place:
    """What this host makes of the guest that arrives; a `remote_destination.Host`."""

    def __init__(self, own: GuestOptions, directory: RunDirectory, allowed: Allowed, console: Console) -> None:
        self.ram_fd = -1
        self.ram_size = 0
        self.window = range(0)
        self.guest: Considered | None = None
        self.plan: Plan | None = None
        self.config: GuestConfig | None = None
        self.supervisor: Supervisor | None = None
        self.sink: Callable[[bytes], None] | None = None
        self._own, self._directory, self._allowed, self._text = own, directory, allowed, console
        self._printed: list[bytes] = []

    def consider(self, offer: dict[str, Any]) -> dict[str, File]:
        """See `receiver_offer`."""
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
        where = self.guest.options.memory_path
        self.ram_size = plan.ram_size
        self.window = window_offsets(plan.ram_size, config.nr_cpus)
        self.ram_fd = memory.create(plan.ram_size, None if where is None else Path(where))
        try:
            (self._directory / files.CONFIG).write_text(config.to_json())
            (self._directory / files.MONITOR).write_bytes(monitor)
            files.identify(self._directory.path, identity)
        except OSError as error:
            raise UsageError(f"{self._directory.path} cannot be written: {error.strerror}") from None
        self.plan, self.config = plan, config
        self.supervisor = Supervisor(
            plan, self._directory, self.ram_fd, self._text, incoming=True, nonce=self.guest.nonce or ""
        )
        self.supervisor.attach(self.sink)
        try:
            await self.supervisor.start(self._own.start_timeout)
        except LaunchError as error:
            raise SdeiError(f"{error.message} {error.output.strip()}") from None
        return self.supervisor

    def console(self, data: bytes) -> None:
        """Kept until the guest is as good as here."""
        self._printed.append(data)

    def history(self, resets: list[dict[str, Any]], count: int, typed: bytes) -> None:
        """Take over what was printed and typed."""
        assert self.supervisor is not None
        data = b"".join(self._printed)
        with contextlib.suppress(OSError):
            (self._directory / files.CONSOLE_LOG).write_bytes(data)
        self._text.recall(data, reset_at=max((entry["position"] for entry in resets), default=-1))
        if self.sink is not None:
            self.sink(data[-_SHOWN:])
        end = self._text.end
        with self._text.changed:
            known = ({**entry, "position": min(entry["position"], end)} for entry in resets)
            self.supervisor.resets = Resets(known, count)
        self.supervisor.write(typed)

    async def abandon(self) -> None:
        """End what there is of it."""
        supervisor, self.supervisor = self.supervisor, None
        if supervisor is not None:
            # By itself the backend would wait until nobody holds the run directory, which we keep.
            supervisor._keeper.kill()
            await supervisor.stop()
        self._directory.remove()
        if self.ram_fd >= 0:
            os.close(self.ram_fd)
        self.ram_fd = -1
        self.guest = self.plan = self.config = None
        self._printed = []


class ReceivedGuest(Guest):
    """A guest that `start` waits for."""

    def __init__(
        self,
        options: GuestOptions,
        listening: Listening,
        *,
        timeout: float = WAIT,
        event: Event = no_event,
        progress: Progress = no_progress,
    ) -> None:
        """`options`: of these the ones of this host count: name, qemu, memory_path, start_timeout."""
        super().__init__(options, progress=progress)
        self._listening = listening
        self._timeout = timeout
        self._event = event
        self._place: _Place | None = None
        self._reception: Reception | None = None
        self._server: asyncio.Server | None = None
        self._closing: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._one_closes = threading.RLock()

    @property
    def here(self) -> bool:
        """The guest runs here, whatever becomes of the source."""
        reception = self._reception
        return reception is not None and reception.arrived.done() and not reception.arrived.cancelled()

    def _bring_up(self) -> None:
        directory = self._directory = _WaitingDirectory.create(self.options.name)
        assert isinstance(directory, _WaitingDirectory)
        self._loop, self._thread = event_loop.start(f"guest {directory.name}")
        place = self._call(self._wait(directory), self._timeout + _STOP)
        assert place.guest is not None
        self.options = place.guest.options
        self.console_text.panic_ends = self.options.on_panic != CONTINUE
        self._nonce = place.guest.nonce or self._nonce
        self._plan, self._config, self._ram_fd = place.plan, place.config, place.ram_fd
        self._supervisor = place.supervisor
        self._place = None
        directory.kept = False
        self._mover = Mover(self)
        with contextlib.suppress(OSError):
            self._call(self._mover.open(directory), _STOP)
        self._client = ControlClient(directory / files.CONTROL, identity=files.identity(directory.path))
        if self._supervisor is not None:
            self._supervisor.attach(self._sink)
        self._event("running", {"name": directory.name})

    async def _wait(self, directory: RunDirectory) -> _Place:
        """Listen until a guest has arrived."""
        self._waiting = asyncio.current_task()
        listening = self._listening
        mine = listening.tcp is None
        allowed = Allowed.of(list(listening.allow), everything=mine)
        place = self._place = _Place(self.options, directory, allowed, self.console_text)
        place.sink = self._sink
        token = secrets.token_urlsafe(24) if listening.tcp is not None and listening.tls is None else ""
        reception = self._reception = Reception(place, token, lambda state, what: self._event(state, {"what": what}))
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
        return place

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

    async def _end_reception(self) -> None:
        if self._reception is not None:
            self._reception.arrived.cancel()
        if self._waiting is not None:
            await asyncio.wait({self._waiting}, timeout=_STOP)  # another thread hears of it
        if self._closing is not None:
            self._closing.cancel()
            await asyncio.gather(self._closing, return_exceptions=True)
        await self._stop_listening()
        if self._place is not None:
            await self._place.abandon()

    def close(self) -> None:
        """End the guest, or the wait for it, whichever thread has that."""
        with self._one_closes:
            super().close()

    def _close(self) -> None:
        try:
            if self._loop is not None and self._loop.is_running():
                with contextlib.suppress(GuestTimeoutError):
                    self._call(self._end_reception(), _STOP)
        finally:
            if isinstance(self._directory, _WaitingDirectory):
                self._directory.kept = False
            super()._close()


def receive(
    *,
    name: str | None = None,
    listen: str | None = None,
    tls: Tls | None = None,
    unix: str | Path | None = None,
    allow: tuple[str, ...] = (),
    qemu: str | Path | None = None,
    memory_path: str | Path | None = None,
    timeout: float = WAIT,
    event: Event = no_event,
    progress: Progress = no_progress,
) -> ReceivedGuest:
    """See `Guest.receive`."""
    options = replace(GuestOptions(), name=name, qemu=qemu, memory_path=memory_path)
    return ReceivedGuest(
        options, Listening.of(listen, tls, unix, allow), timeout=timeout, event=event, progress=progress
    )
