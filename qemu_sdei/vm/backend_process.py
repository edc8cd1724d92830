"""Keeps a backend running: starts it, sees that it answers, starts another when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qemu_sdei import boundedlog, guest_identity, jsonline, locks
from qemu_sdei import rundir as files
from qemu_sdei.backend.loop import memory_limit
from qemu_sdei.errors import GuestError, LaunchError, LostGuestError, ProtocolError, UsageError
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.vm import process
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.early_deaths import EarlyDeaths
from qemu_sdei.vm.place import Death, Place, State
from qemu_sdei.vm.qemu_output import OutputLink

_HELLO_RETRY: Final = 0.02
_MAX_HELLO: Final = 1 << 20
"""Bytes of the backend's answer."""
_MAX_WARNINGS: Final = 100
_LINE: Final = 4096
"""Bytes that a file takes for its first line."""

Failure = GuestError | UsageError
OnEnd = Callable[[Failure | None], None]


class BackendKeeper:
    """The backend of one guest, for use in one event loop."""

    def __init__(
        self,
        directory: RunDirectory,
        ram_fd: int,
        console: Console,
        on_end: OnEnd,
        *,
        place: Place,
        nr_cpus: int,
        die_with_owner: bool,
    ) -> None:
        """`on_end` is called when the guest is to end: with None because a client asked for it, else with the reason.

        `place`: where the guest is, which says what follows when a backend dies. `die_with_owner`: it ends when this
        process is killed.
        """
        self.starts = 0
        """How often a backend was started."""
        self.ready = asyncio.Event()
        """One has answered."""
        self.warnings: list[str] = []
        """What the backend had to tell the user, once it has ended."""
        self.qemu_output: OutputLink | None = None
        """By which what QEMU says is read: the backend does when this process is gone."""
        self._directory = directory
        self._ram_fd = ram_fd
        self._console = console
        self._on_end = on_end
        self._place = place
        self._log = directory / files.BACKEND_LOG
        self._command = [
            sys.executable,
            "-m",
            "qemu_sdei.backend",
            str(directory.path),
            "--ram-fd",
            str(ram_fd),
            "--lifeline",
            *(["--incoming"] if place.state is State.ARRIVING else []),
            *(["--die-with-owner"] if die_with_owner else []),
        ]
        self._may_restart = asyncio.Event()
        self._may_restart.set()
        self._backend: process.Process | None = None
        self._stopping = False
        self._deaths = EarlyDeaths(ram_fd, nr_cpus)

    @property
    def pid(self) -> int | None:
        """Process id of the backend that serves now."""
        return None if self._backend is None else self._backend.pid

    def follow(self) -> None:
        """The guest's place has changed."""
        if self._place.facts.death is Death.WAITS:
            self._may_restart.clear()
        else:
            self._may_restart.set()

    def kill(self) -> None:
        """Kill the backend that runs now."""
        if self._backend is not None:
            self._backend.kill()

    def stop(self) -> None:
        """The backend that ends now is the last."""
        self._stopping = True

    def release(self) -> None:
        """Let go of the backend; it goes on without an owner."""
        self._stopping = True
        if self._backend is not None:
            self._backend.forget()
            self._backend.close_stdin()

    async def end(self, grace: float) -> None:
        """Have the backend end, as it does by itself when QEMU has; kill it after `grace` seconds.

        The run directory goes before it: what the end of its standard input tells it to remove is gone already.
        """
        self._stopping = True
        with contextlib.ExitStack() as files_open:
            log = None
            with contextlib.suppress(OSError):
                log = files_open.enter_context(self._log.open(errors="replace"))
            self._directory.remove()
            if self._backend is not None:
                self._backend.close_stdin()
                await self._backend.end(grace)
            if log is not None:
                lines = [line.strip() for line in log if line.startswith(files.WARNING)]
                self.warnings = [line.removeprefix(files.WARNING) for line in dict.fromkeys(lines)][-_MAX_WARNINGS:]

    async def run(self) -> None:
        """Start backends until `stop` or the end of the guest."""
        former = self._directory / files.BACKEND_LOCK
        if former.exists() and not await asyncio.to_thread(locks.end_holders, former):
            self._on_end(GuestError("the backend of the owner before this one does not end"))
            return
        while not self._stopping:
            await self._may_restart.wait()
            if self._stopping:
                return
            boundedlog.cut(self._log)
            self._deaths.started()
            before = process.log_size(self._log)
            output = None if self.qemu_output is None else self.qemu_output.fd
            command = [*self._command, "--identity", guest_identity.read(self._directory.path)]
            command += [] if output is None else ["--qemu-output", str(output)]
            try:
                # No die_with_parent: it sees the end of its standard input, and has a run directory to remove then.
                backend: process.Process = process.Child(
                    command,
                    pass_fds=(self._ram_fd, *([] if output is None else [output])),
                    log=self._log,
                    stdin_pipe=True,
                    die_with_parent=False,
                )
            except OSError as error:
                self._on_end(LaunchError(f"the backend cannot be started: {error}", command=self._command))
                return
            self._backend = backend
            self.starts += 1
            if self._stopping:
                return
            hello = asyncio.create_task(self._wait_hello())
            returncode = await backend.wait()
            answered = hello.done() and not hello.cancelled()
            hello.cancel()
            if self._stopping:
                return
            if returncode == 0:  # told to by a client's `shutdown`
                self._on_end(None)
                return
            self._deaths.died(answered=answered)
            if (failure := self._verdict(returncode, answered, before)) is not None:
                self._on_end(failure)
                return
            await asyncio.sleep(self._deaths.delay)

    def _verdict(self, returncode: int, answered: bool, before: int) -> Failure | None:
        """Why there is to be no other backend, if that is so."""
        said = process.log_tail(self._log, before)
        words = f"; it said: {said}" if said else ""
        how = process.describe_exit(returncode)
        if self._place.facts.death is Death.ENDS:
            return LostGuestError(f"the destination's backend {how}{words}")
        if returncode == UsageError.exit_code and not answered and said:
            return UsageError(said.splitlines()[-1].removeprefix("qemu-sdei backend: "))
        if returncode == UsageError.exit_code and not answered and _full(self._log.parent):
            # So full that the backend could not even say so.
            where = self._log.parent
            return UsageError(f"{where} has no room: No space left on device; make room there, or set XDG_RUNTIME_DIR")
        if returncode == memory_limit.EXIT:
            return GuestError(f"the backend took too much memory, and the guest was ended{words}")
        if self._deaths.over:
            return LaunchError(
                f"the backend {how} {self._deaths.count} times in a row before it served anything{words}",
                command=self._command,
                console=self._console.last_lines(),
            )
        return None

    async def _wait_hello(self) -> None:
        """Return when the backend answers `hello` on its control socket."""
        path = str(self._directory / files.CONTROL)
        while True:
            with contextlib.suppress(OSError, ProtocolError):
                reader, writer = await asyncio.open_unix_connection(path, limit=_MAX_HELLO)
                try:
                    writer.write(jsonline.encode({"id": 0, "cmd": "hello"}))
                    answer = await jsonline.read(reader, _MAX_HELLO)
                    if answer is not None and answer.get("ok") is True:
                        self.ready.set()
                        return
                finally:
                    writer.close()
            await asyncio.sleep(_HELLO_RETRY)


def _full(directory: Path) -> bool:
    """Whether not even a line fits into a file of `directory`."""
    with contextlib.suppress(OSError):
        info = os.statvfs(directory)
        return info.f_bavail * info.f_frsize < _LINE
    return False
