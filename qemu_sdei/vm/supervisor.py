"""What keeps a guest running: QEMU, the backend that is restarted when it dies, QMP, and the end of them all.

Everything here runs in the guest's event loop (`guest.py` has the thread). Other threads read the public attributes
under `console.changed`, which is notified when one of them changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any, Final

from qemu_sdei import rundir as files
from qemu_sdei.errors import GuestError, LaunchError, UsageError
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.vm import process
from qemu_sdei.vm.backend_process import BackendKeeper
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.console_end import ConsoleEnd, Sink
from qemu_sdei.vm.description import Description
from qemu_sdei.vm.place import Event, Place, State
from qemu_sdei.vm.plan import Plan
from qemu_sdei.vm.qemu_exit import PowerOff
from qemu_sdei.vm.qemu_process import QemuProcess
from qemu_sdei.vm.qmp import Qmp
from qemu_sdei.vm.resets import Resets
from qemu_sdei.vm.silence import STEP, Silence, SilentError

_GRACE: Final = 3.0
"""Seconds that a process has to end by itself before it is killed."""
_DRAIN: Final = 1.0  # seconds to read what a dead QEMU left in its sockets


class Supervisor:
    """One guest's processes. `start` (or `adopt`) once, then `stop`; all from the event loop."""

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        ram_fd: int,
        console: Console,
        *,
        incoming: bool = False,
        nonce: str = "",
    ) -> None:
        """`incoming`: the guest arrives by migration; until then QEMU and the backend wait for it. `nonce`: what its
        shell's words are known by (one that arrives by `inherit` brings it).
        """
        self.plan = plan
        self.directory = directory
        self.console = console
        self.nonce = nonce
        self.power_off: PowerOff | None = None
        self.failure: GuestError | UsageError | None = None
        """Why the guest was given up by us."""
        self.resets = Resets()
        self.place = Place(directory.path, self._describe, arriving=incoming)
        """Where the guest is."""
        self.qmp = Qmp(directory / files.QMP, self._on_event)
        self._keeper = BackendKeeper(
            directory,
            ram_fd,
            console,
            self._backend_over,
            place=self.place,
            nr_cpus=plan.options.smp,
            die_with_owner=plan.die_with_owner,
        )
        self._incoming = incoming
        self._ram_fd = ram_fd
        self._other: Supervisor | None = None
        """The one on this host that the guest went to."""
        self._typing = ConsoleEnd(directory.path, console)
        self._qemu = QemuProcess(plan, directory)
        self._shutdown: dict[str, Any] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()

    @property
    def command(self) -> list[str]:
        """QEMU's command line."""
        return self._qemu.command

    @property
    def qemu_pid(self) -> int | None:
        """Process id of QEMU once it is started."""
        return self._qemu.pid

    @property
    def backend_pid(self) -> int | None:
        """Process id of the backend that serves now."""
        return self._keeper.pid

    @property
    def backend_starts(self) -> int:
        """How often a backend was started."""
        return self._keeper.starts

    @property
    def warnings(self) -> list[str]:
        """What the backend had to tell the user, once it has ended."""
        return self._keeper.warnings

    # Start

    async def start(self, timeout: float) -> None:
        """Start both processes and wait until QMP and the backend answer. `timeout`: see `GuestOptions.start_timeout`.

        Raises `LaunchError`, or `UsageError` where the backend found that the user's input cannot be.
        """
        if not self._incoming:
            self.place.on(Event.BOOT)
        self._qemu.start(self._ram_fd, incoming=self._incoming, listening=self._typing.connect)
        await self._come_up(timeout)

    def _describe(self, directory: Path) -> None:
        Description(self.plan, self.nonce).write(directory)

    async def adopt(self, qemu: process.Process, timeout: float, *, output: int | None = None) -> None:
        """As `start`, for a QEMU that runs: its owner was killed. A backend that runs is replaced.

        `output`: by which what QEMU says is read; None: it writes its log itself, being of an older version.

        Raises `GuestError`: it does not answer; then call `release`, and it goes on as it was.
        """
        self.place.on(Event.ADOPT)
        self._qemu.adopt(qemu, output)
        self._typing.connect()
        await self._come_up(timeout)

    async def _come_up(self, timeout: float) -> None:
        self.qmp.pid = self.qemu_pid
        self._keeper.qemu_output = self._qemu.output
        self._tasks += [asyncio.create_task(work) for work in (self._keeper.run(), self._watch_qemu(), self.qmp.keep())]
        ready: asyncio.Future[Any] = asyncio.gather(self.qmp.wait_connected(), self._keeper.ready.wait())
        ended = asyncio.ensure_future(self._ended.wait())
        late = silent = ""
        try:
            while not (ready.done() or ended.done() or silent):
                awaited = "the backend" if self.qmp.connected else "QEMU"
                if awaited != late:
                    late, silence = awaited, Silence(timeout)
                await asyncio.wait({ready, ended}, timeout=STEP, return_when=asyncio.FIRST_COMPLETED)
                try:
                    silence.check(self.backend_pid if self.qmp.connected else self.qemu_pid)
                except SilentError as error:
                    silent = str(error)
            if ended.done():
                end = self.power_off
                if self.failure is None and end is not None and end.guest and end.returncode == 0:
                    return  # a guest that had little to do: it was up, and has ended by itself
                assert end is not None
                raise self.failure or self._qemu.launch_error(end)
            if not ready.done():
                log = process.log_tail(self.directory / files.BACKEND_LOG)
                raise LaunchError(
                    f"{late} did not answer: {silent}" + (f"; the backend said: {log}" if log else ""),
                    command=self.command,
                    output=self._qemu.last_words(),
                )
            ready.result()
        finally:
            ended.cancel()
            ready.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    # Console

    def write(self, data: bytes) -> None:
        """Type `data` at the guest's console; buffered, never blocks."""
        self._typing.write(data)

    @property
    def backlog(self) -> int:
        """Bytes that were typed and wait here."""
        return self._typing.backlog

    def attach(self, sink: Sink | None) -> None:
        """Have the console's raw bytes given to `sink` too (in the event loop: it must not block)."""
        self._typing.attach(sink)

    # QMP

    def _on_event(self, name: str, data: dict[str, Any]) -> None:
        if name == "SHUTDOWN":
            self._shutdown = data
        else:
            self._on_reset(data)

    def _on_reset(self, data: dict[str, Any]) -> None:
        with self.console.changed:
            self.resets.add({**data, "position": self.console.end})
            self.console.forget_panic()
            self.console.changed.notify_all()

    async def execute(self, command: str, arguments: dict[str, object]) -> object:
        """Execute a QMP command.

        Raises `LostGuestError` when QEMU is gone, `GuestError` with QEMU's words when it refuses, and where it cannot
        be reached.
        """
        return await self.qmp.execute(command, arguments)

    async def pass_fd(self, name: str, fd: int) -> None:
        """Give QEMU a descriptor of ours, for URIs `fd:NAME`. Raises `GuestError`."""
        self.qmp.pass_fd(fd)
        await self.execute("getfd", {"fdname": name})

    # Migration

    @property
    def name(self) -> str:
        """The guest's name."""
        return self.directory.name

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    def leaves(self) -> None:
        """The guest is being handed over: a backend that dies is not replaced, and what is typed is kept."""
        self._now(Event.LEAVE)

    def stays(self) -> None:
        """The guest goes on here after all, or it has arrived here from elsewhere."""
        self.take_back()
        self._now(Event.RETURN)

    def take_back(self) -> None:
        """After `inherit` by another one: the guest is not there. It goes on here, or nowhere."""
        if self.place.state is State.MOVED:
            assert self._other is not None
            self._now(Event.TAKE_BACK, other=self._other.place)

    async def inherit(self, source: Supervisor) -> None:
        """The guest is about to go on here and not at `source`: take over its console and history."""
        self.resets = source.resets
        self.nonce = source.nonce
        sink, typed, said = source.hand_over(self)
        self._typing.take_over(said)
        self.attach(sink)
        self.write(typed)
        # From here on the guest is here, should this process die.
        self._now(Event.TAKE, other=source.place)

    def hand_over(self, to: Supervisor) -> tuple[Sink | None, bytes, tuple[bytes, ...] | None]:
        """The guest is about to go on at `to`, on this host. Returns who gets the console's bytes, what was typed and
        not read, and what was printed (None: that cannot be read).
        """
        self._typing.drain()
        self._other = to
        handed = self._typing.sink, self.take_input(), self._typing.log()
        self._now(Event.HAND_OVER)
        return handed

    def goes_on(self) -> None:
        """After `inherit`: it runs here, and nothing leads back."""
        self._now(Event.GO)

    def give_back(self) -> None:
        """The guest goes on at the source after all: the end of these processes is not its end."""
        if self.place.state is State.ARRIVED:
            self._now(Event.GIVE_BACK)
        self.attach(None)

    def told(self, where: str) -> None:
        """Another host is about to be told to go on with the guest: from now on it may run there.

        Raises `OSError`: that cannot be noted for whoever adopts it, so it must not be told.
        """
        self._now(Event.TELL, where=where)

    def departed(self, where: str) -> None:
        """The other host has said that the guest runs there, at `where`."""
        self._now(Event.CONFIRM, where=where)

    def found(self, where: str) -> None:
        """Of an adopted guest: it may run at another host."""
        self._now(Event.FIND, where=where)

    def _now(self, event: Event, *, where: str = "", other: Place | None = None) -> None:
        self.place.on(event, where=where, other=other)
        self._keeper.follow()
        self._typing.hold(self.place.facts.input_held)

    def know(self, nonce: str) -> None:
        """The guest is another boot than the one that was started: its shell's words are known by `nonce`."""
        if nonce != self.nonce:
            self.nonce = nonce
            self.place.describe()

    async def last_words(self) -> str:
        """Why a QEMU that ended, or is about to, did not take the guest that arrived."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), 2 * _GRACE)
        return self.complaint

    @property
    def complaint(self) -> str:
        """Why a QEMU that has ended did not take the guest that arrived; "" if it did not complain."""
        return self._qemu.complaint

    def take_input(self) -> bytes:
        """What was typed and QEMU has not read; for a guest that goes on elsewhere."""
        return self._typing.unread()

    # End

    def _backend_over(self, failure: GuestError | UsageError | None) -> None:
        """There will be no other backend."""
        self.failure = failure
        self.signal_qemu(signal.SIGTERM if failure is None else signal.SIGKILL)
        if self.qemu_pid is not None:  # one that hangs does not hear of SIGTERM
            self._tasks.append(asyncio.create_task(self._qemu.end(_GRACE)))

    def _lost(self) -> GuestError:
        if isinstance(self.failure, GuestError):
            return self.failure
        assert self.power_off is not None
        return self._qemu.lost(self.power_off, self.console.last_lines())

    def signal_qemu(self, number: signal.Signals) -> None:
        """Send QEMU a signal, if it has been started."""
        self._qemu.signal(number)

    async def kill(self) -> None:
        """End QEMU at once; returns when nothing of the guest runs in it any more."""
        await self._qemu.kill()

    async def _watch_qemu(self) -> None:
        returncode = await self._qemu.wait()
        self._keeper.stop()
        by = files.ended_by(self.directory.path)  # now: the directory goes with the backend
        # What it wrote last is still in the sockets.
        drained = asyncio.ensure_future(self.qmp.drain())
        await asyncio.wait({self._typing.lost, drained}, timeout=_DRAIN)
        drained.cancel()
        self._qemu.ended()
        if returncode == process.UNKNOWN and self._shutdown is not None:
            returncode = 0
        reason = "lost" if returncode else "unknown"
        cause = self._shutdown or {}
        await self._end_backend()
        if not self.place.facts.is_guest:
            self.power_off = PowerOff(reason, False, returncode)  # of these processes, not of the guest
            self._ended.set()
            return
        with self.console.changed:
            reason = str(cause.get("reason", reason))
            gone_to = self.place.where if self.place.state is State.GONE else ""
            guest = bool(cause.get("guest", False))
            self.power_off = PowerOff(reason, guest, returncode, gone_to, "" if guest or gone_to else by)
            self.console.close(self._lost)
        self._ended.set()

    async def _end_backend(self) -> None:
        if self._keeper.pid is not None:
            # It ends by itself once QEMU has, and writes its trace to the end.
            await self._keeper.end(_GRACE)

    async def stop(self) -> None:
        """End both processes and forget the run directory; returns when nothing of the guest is left."""
        self._keeper.stop()
        if self.qemu_pid is not None and self._tasks:
            self.signal_qemu(signal.SIGTERM)
            await self._qemu.end(_GRACE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 2 * _GRACE)
        await self._cancel()
        self._qemu.signal(signal.SIGKILL)
        await self._end_backend()
        if self.place.facts.is_guest:
            self.console.close(self._lost if self.power_off is not None else None)

    async def abandon(self) -> None:
        """As `stop`, of a guest that has not arrived, in a run directory that is used again: by itself the backend
        would wait until nobody holds that.
        """
        self._keeper.kill()
        await self.stop()

    async def release(self) -> None:
        """Let go of the guest, which goes on without an owner."""
        self._now(Event.RELEASE)
        self._keeper.release()
        await self._cancel()
        self._qemu.forget()
        self.directory.release()
        self.console.close()

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.qmp.close()
        self._typing.close()
        self._qemu.close()
