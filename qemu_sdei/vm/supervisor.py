"""What keeps a guest running: QEMU, the backend that is restarted when it dies, QMP, and the end of them all.

Everything here runs in the guest's event loop (`guest.py` has the thread). Other threads read the public attributes
under `console.changed`, which is notified when one of them changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qemu_sdei import rundir as files
from qemu_sdei.errors import GuestError, LaunchError, UsageError
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.vm import process
from qemu_sdei.vm.backend_process import BackendKeeper
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.console_link import ConsoleLink
from qemu_sdei.vm.description import Description
from qemu_sdei.vm.launch import launch
from qemu_sdei.vm.plan import Plan
from qemu_sdei.vm.qemu_exit import PowerOff, launch_error, lost, not_taken
from qemu_sdei.vm.qemu_output import OutputLink
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
        self.command: list[str] = []
        """QEMU's command line."""
        self.power_off: PowerOff | None = None
        self.failure: GuestError | UsageError | None = None
        """Why the guest was given up by us."""
        self.resets = Resets()
        self.moved = ""
        """Where the guest is now, if it has gone to another host."""
        self.undecided = ""
        """Where it may be, and nobody knows: it stands still here."""
        self.qmp = Qmp(directory / files.QMP, self._on_event)
        self.carries = not incoming
        """The guest is here: the end of these processes is its end."""
        self._keeper = BackendKeeper(
            directory,
            ram_fd,
            console,
            self._backend_over,
            nr_cpus=plan.options.smp,
            incoming=incoming,
            die_with_owner=plan.die_with_owner,
        )
        self._incoming = incoming
        self._ram_fd = ram_fd
        self._successor: Path | None = None
        self._held_input: bytearray | None = None
        self._qemu: process.Process | None = None
        self._link: ConsoleLink | None = None
        self._output: OutputLink | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._shutdown: dict[str, Any] | None = None
        self._qemu_output = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()

    @property
    def qemu_pid(self) -> int | None:
        """Process id of QEMU once it is started."""
        return None if self._qemu is None else self._qemu.pid

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
        if self.carries:
            Description(self.plan, self.nonce).write(self.directory.path)
        self.command, self._qemu, output = launch(
            self.plan, self.directory, self._ram_fd, incoming=self._incoming, listening=self._connect_console
        )
        self._read_output(output)
        await self._come_up(timeout)

    def _read_output(self, fd: int) -> None:
        log = self.directory / files.QEMU_LOG
        try:
            self._output = self._keeper.qemu_output = OutputLink(fd, log)
        except OSError as error:
            raise UsageError(
                f"{log} cannot be written: {error.strerror}; make room there, or set XDG_RUNTIME_DIR"
            ) from None

    async def adopt(self, qemu: process.Process, timeout: float, *, output: int | None = None) -> None:
        """As `start`, for a QEMU that runs: its owner was killed. A backend that runs is replaced.

        `output`: by which what QEMU says is read; None: it writes its log itself, being of an older version.

        Raises `GuestError`: it does not answer; then call `release`, and it goes on as it was.
        """
        self._qemu = qemu
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{qemu.pid}/cmdline").read_bytes()
            self.command = [os.fsdecode(word) for word in line.split(b"\0")[:-1]]
        if output is not None:
            self._read_output(output)
        self._connect_console()
        await self._come_up(timeout)

    async def _come_up(self, timeout: float) -> None:
        self.qmp.pid = self.qemu_pid
        self._tasks += [asyncio.create_task(work) for work in (self._keeper.run(), self._watch_qemu(), self.qmp.keep())]
        ready = asyncio.create_task(self._wait_ready())
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
                raise self.failure or self._launch_error()
            if not ready.done():
                log = process.log_tail(self.directory / files.BACKEND_LOG)
                raise LaunchError(
                    f"{late} did not answer: {silent}" + (f"; the backend said: {log}" if log else ""),
                    command=self.command,
                    output=process.log_tail(self.directory / files.QEMU_LOG),
                )
            ready.result()
        finally:
            ended.cancel()
            ready.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    async def _wait_ready(self) -> None:
        await asyncio.gather(self.qmp.wait_connected(), self._keeper.ready.wait())

    # Console

    def _connect_console(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.connect(str(self.directory / files.CONSOLE))
            self._link = ConsoleLink(connection, self.console, self.directory / files.CONSOLE_LOG)
        except OSError as error:
            connection.close()
            raise LaunchError(f"the guest's console cannot be reached: {error.strerror or error}") from None
        self._link.sink = self._sink

    def write(self, data: bytes) -> None:
        """Type `data` at the guest's console; buffered, never blocks."""
        if self._held_input is not None:
            self._held_input += data
        elif self._link is not None:
            self._link.write(data)

    @property
    def backlog(self) -> int:
        """Bytes that were typed and wait here."""
        return len(self._held_input or b"") + (0 if self._link is None else self._link.backlog)

    def attach(self, sink: Callable[[bytes], None] | None) -> None:
        """Have the console's raw bytes given to `sink` too (in the event loop: it must not block)."""
        self._sink = sink
        if self._link is not None:
            self._link.sink = sink

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

    def suspend(self) -> None:
        """The guest is being handed over: a backend that dies is not replaced, and what is typed is kept."""
        with contextlib.suppress(OSError):
            (self.path / files.HANDOVER).touch(0o600)
        self._keeper.suspend()
        self._held_input = bytearray()

    def resume(self) -> None:
        """The guest goes on here after all, or it has arrived here from elsewhere."""
        self.carries = True
        self._keeper.waiting = False
        if self._successor is not None:
            with contextlib.suppress(OSError):
                (self._successor / files.RUN).replace(self.path / files.RUN)
            self._successor = None
        if not (self.path / files.RUN).exists():
            with contextlib.suppress(UsageError):  # a full disk: it goes on, but nobody could adopt it
                Description(self.plan, self.nonce).write(self.path)
        with contextlib.suppress(OSError):
            (self.path / files.HANDOVER).unlink()
        self._keeper.resume()
        held, self._held_input = self._held_input, None
        if held:
            self.write(bytes(held))

    async def inherit(self, source: Supervisor) -> None:
        """The guest is about to go on here and not at `source`: take over its console and history."""
        if source._link is not None:
            source._link.drain()
        with contextlib.suppress(OSError):
            log = (source.path / files.CONSOLE_LOG).read_bytes()
            (self.path / files.CONSOLE_LOG).write_bytes(log)
        self.resets = source.resets
        self.nonce = source.nonce
        self.attach(source._sink)
        self.write(source.take_input())
        with contextlib.suppress(OSError):
            (self.path / files.HANDOVER).touch(0o600)  # until it runs there: see `stop`
        with contextlib.suppress(OSError):  # as a file system would have it that is full: it goes on all the same
            # From here on the guest is here, should this process die: by one step, so that it is never at both.
            (source.path / files.RUN).replace(self.path / files.RUN)
        source._successor = self.path
        source.carries, self.carries = False, True
        self._keeper.waiting = False

    def give_back(self) -> None:
        """The guest goes on at the source after all: the end of these processes is not its end."""
        self.carries = False
        self._keeper.waiting = True
        self.attach(None)

    def know(self, nonce: str) -> None:
        """The guest is another boot than the one that was started: its shell's words are known by `nonce`."""
        if nonce != self.nonce:
            self.nonce = nonce
            with contextlib.suppress(UsageError):  # as in `resume`
                Description(self.plan, nonce).write(self.path)

    async def last_words(self) -> str:
        """Why a QEMU that ended, or is about to, did not take the guest that arrived."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), 2 * _GRACE)
        return self.complaint

    @property
    def complaint(self) -> str:
        """Why a QEMU that has ended did not take the guest that arrived; "" if it did not complain."""
        return not_taken(process.complaints(self._qemu_output))

    def take_input(self) -> bytes:
        """What was typed and QEMU has not read; for a guest that goes on elsewhere."""
        return (b"" if self._link is None else self._link.unread()) + bytes(self._held_input or b"")

    # End

    def _backend_over(self, failure: GuestError | UsageError | None) -> None:
        """There will be no other backend."""
        self.failure = failure
        self.signal_qemu(signal.SIGTERM if failure is None else signal.SIGKILL)
        if self._qemu is not None:  # one that hangs does not hear of SIGTERM
            self._tasks.append(asyncio.create_task(self._qemu.end(_GRACE)))

    def _launch_error(self) -> LaunchError | UsageError:
        assert self.power_off is not None
        return launch_error(self.power_off, self.plan, self.command, self._qemu_output)

    def _lost(self) -> GuestError:
        if isinstance(self.failure, GuestError):
            return self.failure
        assert self.power_off is not None
        return lost(self.power_off, self.plan, self.command, self._qemu_output, self.console.last_lines())

    def signal_qemu(self, number: signal.Signals) -> None:
        """Send QEMU a signal, if it has been started."""
        if self._qemu is not None:
            self._qemu.kill(number)
            if number == signal.SIGTERM:
                # One that is stopped would not hear of it, nor write to its disks what it has.
                self._qemu.kill(signal.SIGCONT)

    async def _watch_qemu(self) -> None:
        assert self._qemu is not None
        assert self._link is not None
        returncode = await self._qemu.wait()
        self._keeper.stop()
        # What it wrote last is still in the sockets.
        drained = asyncio.ensure_future(self.qmp.drain())
        await asyncio.wait({self._link.lost, drained}, timeout=_DRAIN)
        drained.cancel()
        if self._output is not None:
            self._output.close()
        self._qemu_output = process.log_tail(self.directory / files.QEMU_LOG)
        if returncode == process.UNKNOWN and self._shutdown is not None:
            returncode = 0
        reason = "lost" if returncode else "unknown"
        cause = self._shutdown or {}
        await self._end_backend()
        if not self.carries:
            self.power_off = PowerOff(reason, False, returncode)  # of these processes, not of the guest
            self._ended.set()
            return
        with self.console.changed:
            reason = str(cause.get("reason", reason))
            self.power_off = PowerOff(reason, bool(cause.get("guest", False)), returncode, self.moved)
            self.console.close(self._lost)
        self._ended.set()

    async def _end_backend(self) -> None:
        if self._keeper.pid is None:
            return
        # It ends by itself once QEMU has, and writes its trace to the end.
        await self._keeper.end(_GRACE)

    async def stop(self) -> None:
        """End both processes and forget the run directory; returns when nothing of the guest is left."""
        self._keeper.stop()
        if self._successor is not None:
            with contextlib.suppress(OSError):
                (self._successor / files.HANDOVER).unlink()
        if self._qemu is not None and self._tasks:
            self.signal_qemu(signal.SIGTERM)
            await self._qemu.end(_GRACE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 2 * _GRACE)
        await self._cancel()
        if self._qemu is not None:
            self._qemu.kill()
        await self._end_backend()
        if self.carries:
            self.console.close(self._lost if self.power_off is not None else None)

    async def release(self) -> None:
        """Let go of the guest, which goes on without an owner."""
        self._keeper.release()
        await self._cancel()
        if self._qemu is not None:
            self._qemu.forget()
        self.directory.release()
        self.console.close()

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.qmp.close()
        if self._link is not None:
            self._link.close()
        if self._output is not None:
            self._output.close()
