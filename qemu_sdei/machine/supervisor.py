"""What keeps a guest running: QEMU, the backend that is restarted when it dies, QMP, and the end of them all.

Everything here runs in the guest's event loop (`guest.py` has the thread). Other threads read the public attributes
under `console.changed`, which is notified when one of them changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qemu_sdei import rundir as files
from qemu_sdei.errors import GuestError, LaunchError, LostGuestError, UsageError
from qemu_sdei.machine import process
from qemu_sdei.machine.console import Console
from qemu_sdei.machine.console_link import ConsoleLink
from qemu_sdei.machine.endings import PowerOff, launch_error, lost
from qemu_sdei.machine.plan import Plan
from qemu_sdei.machine.qemu import INCOMING, command_line, fd_wiring
from qemu_sdei.machine.qmp import Qmp
from qemu_sdei.rundir import RunDirectory

MAX_EARLY_DEATHS: Final = 5
"""Deaths of the backend in a row, none of which answered its control socket, after which the guest is given up."""
_GRACE: Final = 3.0
"""Seconds that a process has to end by itself before it is killed."""
_DRAIN: Final = 1.0  # seconds to read what a dead QEMU left in its sockets
_HELLO_RETRY: Final = 0.02


class Supervisor:
    """One guest's processes. `start` once, then `stop`; both from the event loop."""

    def __init__(
        self, plan: Plan, directory: RunDirectory, ram_fd: int, console: Console, *, incoming: bool = False
    ) -> None:
        """`incoming`: the guest arrives by migration; until then QEMU and the backend wait for it."""
        self.plan = plan
        self.directory = directory
        self.console = console
        self.command: list[str] = []
        """QEMU's command line."""
        self.power_off: PowerOff | None = None
        self.failure: GuestError | UsageError | None = None
        """Why the guest was given up by us."""
        self.resets: list[dict[str, Any]] = []
        """QMP RESET events: {guest, reason, position}, `position` being the console's end then."""
        self.backend_starts = 0
        self.qmp = Qmp()
        self.carries = not incoming
        """The guest is here: the end of these processes is its end."""
        self._may_restart = asyncio.Event()
        self._may_restart.set()
        self._held_input: bytearray | None = None
        self._console_end: socket.socket | None = None
        self._incoming = incoming
        self._ram_fd = ram_fd
        self._qemu: process.Child | None = None
        self._backend: process.Child | None = None
        self._link: ConsoleLink | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._shutdown: dict[str, Any] | None = None
        self._stopping = False
        self._qemu_output = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()
        self._backend_ready = asyncio.Event()

    @property
    def qemu_pid(self) -> int | None:
        """Process id of QEMU once it is started."""
        return None if self._qemu is None else self._qemu.pid

    @property
    def backend_pid(self) -> int | None:
        """Process id of the backend that serves now."""
        return None if self._backend is None else self._backend.pid

    # Start

    async def start(self, timeout: float) -> None:
        """Start both processes and wait until QMP and the backend answer, `timeout` seconds at most.

        Raises `LaunchError`, or `UsageError` where the backend found that the user's input cannot be.
        """
        await self._start_qemu()
        self._tasks.append(asyncio.create_task(self._keep_backend()))
        self._tasks.append(asyncio.create_task(self._watch_qemu()))
        ready = asyncio.create_task(self._wait_ready())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({ready, ended}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                end = self.power_off
                if self.failure is None and end is not None and end.guest and end.returncode == 0:
                    return  # a guest that had little to do: it was up, and has ended by itself
                raise self.failure or self._launch_error()
            if not ready.done():
                late = "QMP" if not self.qmp.connected else "the backend"
                log = process.log_tail(self.directory / files.BACKEND_LOG)
                raise LaunchError(
                    f"{late} did not answer within {timeout:g} s" + (f"; the backend said: {log}" if log else ""),
                    command=self.command,
                    output=process.log_tail(self.directory / files.QEMU_LOG),
                )
            ready.result()
        finally:
            ended.cancel()
            ready.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    async def _wait_ready(self) -> None:
        await asyncio.gather(self._connect_qmp(), self._backend_ready.wait())

    async def _start_qemu(self) -> None:
        options = self.plan.options
        path = self.directory / files.DOORBELL
        with contextlib.ExitStack() as ours:
            # We listen, QEMU inherits: the backend can connect from the first moment on.
            doorbell = ours.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            doorbell.bind(str(path))
            doorbell.listen(1)
            console, console_end = socket.socketpair()
            ours.enter_context(console_end)
            qmp, qmp_end = socket.socketpair()
            ours.enter_context(qmp_end)
            fds = (self._ram_fd, doorbell.fileno(), console_end.fileno(), qmp_end.fileno())
            self.command = command_line(
                str(self.plan.qemu),
                nr_cpus=options.smp,
                topology=options.topology,
                ram_size=self.plan.ram_size,
                cpu=options.cpu,
                virtualization=options.virtualization,
                wiring=fd_wiring(
                    str(self.directory / files.MONITOR), ram=fds[0], doorbell=fds[1], console=fds[2], qmp=fds[3]
                ),
                reboot=self.plan.reboot,
                extra=(*self.plan.devices.arguments, *options.qemu_args, *(INCOMING if self._incoming else ())),
            )
            self._qmp_socket = qmp
            # Kept, so that what QEMU has not read of it by the time that the guest moves away can be taken back.
            self._console_end = console_end.dup()
            self._console_end.setblocking(False)
            console.setblocking(False)
            link = self._link = ConsoleLink(self.console, self.directory / files.CONSOLE_LOG)
            link.sink = self._sink
            await asyncio.get_running_loop().create_connection(lambda: link, sock=console)
            try:
                self._qemu = process.Child(
                    self.command,
                    pass_fds=fds,
                    log=self.directory / files.QEMU_LOG,
                    stdin_pipe=False,
                    die_with_parent=True,
                )
            except OSError as error:
                raise LaunchError(f"QEMU cannot be started: {error}", command=self.command) from None

    def write(self, data: bytes) -> None:
        """Type `data` at the guest's console; buffered, never blocks."""
        if self._held_input is not None:
            self._held_input += data
        elif self._link is not None:
            self._link.write(data)

    def attach(self, sink: Callable[[bytes], None] | None) -> None:
        """Have the console's raw bytes given to `sink` too (in the event loop: it must not block)."""
        self._sink = sink
        if self._link is not None:
            self._link.sink = sink

    # QMP

    async def _connect_qmp(self) -> None:
        if not await self.qmp.connect(self._qmp_socket, self._on_event, self._tasks):
            await self._ended.wait()  # its own words say why

    def _on_event(self, name: str, data: dict[str, Any]) -> None:
        if name == "SHUTDOWN":
            self._shutdown = data
        else:
            self._on_reset(data)

    def _on_reset(self, data: dict[str, Any]) -> None:
        with self.console.changed:
            self.resets.append({**data, "position": self.console.end})
            self.console.forget_panic()
            self.console.changed.notify_all()

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
        self._may_restart.clear()
        self._held_input = bytearray()

    def resume(self) -> None:
        """The guest goes on here after all."""
        self.carries = True
        self._may_restart.set()
        held, self._held_input = self._held_input, None
        if held:
            self.write(bytes(held))

    async def inherit(self, source: Supervisor) -> None:
        """The guest is about to go on here and not at `source`: take over its console and history."""
        if source._link is not None:
            await source._link.drain()
        with contextlib.suppress(OSError):
            log = (source.path / files.CONSOLE_LOG).read_bytes()
            (self.path / files.CONSOLE_LOG).write_bytes(log)
        self.resets = source.resets
        self.attach(source._sink)
        self.write(source._unread_input() + bytes(source._held_input or b""))
        source.carries, self.carries = False, True

    def give_back(self) -> None:
        """The guest goes on at the source after all: the end of these processes is not its end."""
        self.carries = False
        self.attach(None)

    def _unread_input(self) -> bytes:
        """What was typed and QEMU has not read."""
        data = b""
        if self._console_end is not None:
            with contextlib.suppress(OSError):
                while part := self._console_end.recv(1 << 16):
                    data += part
        return data

    # Backend

    async def _keep_backend(self) -> None:
        early_deaths = 0
        log = self.directory / files.BACKEND_LOG
        command = [
            sys.executable,
            "-m",
            "qemu_sdei.backend",
            str(self.directory.path),
            "--ram-fd",
            str(self._ram_fd),
            "--lifeline",
            *(["--incoming"] if self._incoming else []),
        ]
        while not self._stopping:
            await self._may_restart.wait()
            before = process.log_size(log)
            try:
                # No die_with_parent: it sees the end of its standard input, and has a run directory to remove then.
                backend = process.Child(
                    command, pass_fds=(self._ram_fd,), log=log, stdin_pipe=True, die_with_parent=False
                )
            except OSError as error:
                self._give_up(LaunchError(f"the backend cannot be started: {error}", command=command))
                return
            self._backend = backend
            self.backend_starts += 1
            if self._stopping:
                return
            hello = asyncio.create_task(self._wait_hello())
            returncode = await backend.wait()
            answered = hello.done() and not hello.cancelled()
            hello.cancel()
            if self._stopping:
                return
            if returncode == 0:  # told to by a client's `shutdown`
                self._qemu_signal(signal.SIGTERM)
                return
            said = process.log_tail(log, before)
            if self._incoming and not self.carries:
                what = process.describe_exit(returncode)
                self._give_up(
                    LostGuestError(f"the destination's backend {what}" + (f"; it said: {said}" if said else ""))
                )
                return
            if returncode == UsageError.exit_code and not answered and said:
                self._give_up(UsageError(said.splitlines()[-1].removeprefix("qemu-sdei backend: ")))
                return
            early_deaths = 0 if answered else early_deaths + 1
            if early_deaths >= MAX_EARLY_DEATHS:
                what = process.describe_exit(returncode)
                self._give_up(
                    LaunchError(
                        f"the backend {what} {early_deaths} times in a row before it served anything"
                        + (f"; it said: {said}" if said else ""),
                        command=command,
                        console=self.console.last_lines(),
                    )
                )
                return

    async def _wait_hello(self) -> None:
        """Return when the backend answers `hello` on its control socket."""
        path = str(self.directory / files.CONTROL)
        while True:
            with contextlib.suppress(OSError, ValueError, EOFError):
                reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
                try:
                    writer.write(b'{"id": 0, "cmd": "hello"}\n')
                    line = await reader.readline()
                    if line and json.loads(line).get("ok") is True:
                        self._backend_ready.set()
                        return
                finally:
                    writer.close()
            await asyncio.sleep(_HELLO_RETRY)

    def _give_up(self, failure: GuestError | UsageError) -> None:
        self.failure = failure
        self._qemu_signal(signal.SIGKILL)

    # End

    def _launch_error(self) -> LaunchError | UsageError:
        assert self.power_off is not None
        return launch_error(self.power_off, self.plan, self.command, self._qemu_output)

    def _lost(self) -> GuestError:
        if isinstance(self.failure, GuestError):
            return self.failure
        assert self.power_off is not None
        return lost(self.power_off, self.command, self._qemu_output, self.console.last_lines())

    def _qemu_signal(self, number: signal.Signals) -> None:
        if self._qemu is not None:
            self._qemu.kill(number)

    async def _watch_qemu(self) -> None:
        assert self._qemu is not None
        assert self._link is not None
        returncode = await self._qemu.wait()
        self._stopping = True
        if self._console_end is not None:
            self._console_end.close()  # so that the link sees its end
        # What it wrote last is still in the sockets.
        waits = [asyncio.ensure_future(self._link.lost)]
        waits.append(asyncio.ensure_future(self.qmp.drain()))
        await asyncio.wait(waits, timeout=_DRAIN)
        self._qemu_output = process.log_tail(self.directory / files.QEMU_LOG)
        reason = "lost" if returncode else "unknown"
        cause = self._shutdown or {}
        await self._end_backend()
        if not self.carries:
            self.power_off = PowerOff(reason, False, returncode)  # of these processes, not of the guest
            self._ended.set()
            return
        with self.console.changed:
            self.power_off = PowerOff(str(cause.get("reason", reason)), bool(cause.get("guest", False)), returncode)
            self.console.close(self._lost)
        self._ended.set()

    async def _end_backend(self) -> None:
        backend = self._backend
        if backend is None:
            return
        # It ends by itself once QEMU has, and writes its trace to the end. What the end of its standard input tells it
        # to remove is gone already.
        self.directory.remove()
        backend.close_stdin()
        await backend.end(_GRACE)

    async def stop(self) -> None:
        """End both processes and forget the run directory; returns when nothing of the guest is left."""
        self._stopping = True
        if self._qemu is not None and self._tasks:
            self._qemu_signal(signal.SIGTERM)
            await self._qemu.end(_GRACE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 2 * _GRACE)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._qemu is not None:
            self._qemu.kill()
        await self._end_backend()
        if self._link is not None:
            self._link.close()
        if self._console_end is not None:
            self._console_end.close()
        if self.carries:
            self.console.close(self._lost if self.power_off is not None else None)

    async def execute(self, command: str, arguments: dict[str, object]) -> object:
        """Execute a QMP command.

        Raises `LostGuestError` when QEMU is gone, `GuestError` with QEMU's words when it refuses.
        """
        return await self.qmp.execute(command, arguments)
