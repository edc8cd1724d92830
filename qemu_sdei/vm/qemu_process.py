"""The QEMU of one guest: started or taken over, what it says, and the errors that tell of its end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from qemu_sdei import rundir as files
from qemu_sdei.errors import LaunchError, LostGuestError, UsageError
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.vm import process
from qemu_sdei.vm.launch import launch
from qemu_sdei.vm.plan import Plan
from qemu_sdei.vm.qemu_exit import PowerOff, launch_error, lost, not_taken
from qemu_sdei.vm.qemu_output import OutputLink


class QemuProcess:
    """One QEMU, from `start` or `adopt` on; all from the event loop.

    Attributes:
        command: its command line.
        output: by which what it says comes into its log; None: it writes that itself, being of an older version.
    """

    def __init__(self, plan: Plan, directory: RunDirectory) -> None:
        self._plan = plan
        self._directory = directory
        self.command: list[str] = []
        self.output: OutputLink | None = None
        self._process: process.Process | None = None
        self._said = ""
        """The end of its log, once it has ended."""

    @property
    def pid(self) -> int | None:
        """Process id, once it is started."""
        return None if self._process is None else self._process.pid

    def start(self, ram_fd: int, *, incoming: bool, listening: Callable[[], None]) -> None:
        """See `launch`. Raises `UsageError`, `LaunchError`."""
        self.command, self._process, output = launch(
            self._plan, self._directory, ram_fd, incoming=incoming, listening=listening
        )
        self._read(output)

    def adopt(self, running: process.Process, output: int | None) -> None:
        """It runs; `output`: a descriptor by which what it says is read. Raises `UsageError`."""
        self._process = running
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{running.pid}/cmdline").read_bytes()
            self.command = [os.fsdecode(word) for word in line.split(b"\0")[:-1]]
        if output is not None:
            self._read(output)

    def _read(self, fd: int) -> None:
        log = self._directory / files.QEMU_LOG
        try:
            self.output = OutputLink(fd, log)
        except OSError as error:
            raise UsageError(
                f"{log} cannot be written: {error.strerror}; make room there, or set XDG_RUNTIME_DIR"
            ) from None

    # End

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it has been started."""
        if self._process is not None:
            self._process.kill(number)
            if number == signal.SIGTERM:
                # One that is stopped would not hear of it, nor write to its disks what it has.
                self._process.kill(signal.SIGCONT)

    async def kill(self) -> None:
        """End it at once; returns when it has ended."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    async def end(self, grace: float) -> None:
        """Wait until it has ended by itself, `grace` seconds at most; then it is killed."""
        if self._process is not None:
            await self._process.end(grace)

    async def wait(self) -> int:
        """Wait until it has ended; returns its exit status (`process.UNKNOWN`: not a child of ours)."""
        assert self._process is not None
        return await self._process.wait()

    def forget(self) -> None:
        """Look after it no more: it goes on."""
        if self._process is not None:
            self._process.forget()

    def close(self) -> None:
        """Read no more of what it says."""
        if self.output is not None:
            self.output.close()

    def ended(self) -> None:
        """It has ended: take note of what it said last."""
        self.close()
        self._said = self.last_words()

    # What it said

    def last_words(self) -> str:
        """The end of its log, as it is now."""
        return process.log_tail(self._directory / files.QEMU_LOG)

    @property
    def complaint(self) -> str:
        """Why, having ended, it did not take the guest that arrived; "" if it did not complain."""
        return not_taken(process.complaints(self._said))

    def launch_error(self, end: PowerOff) -> LaunchError | UsageError:
        """It has ended so before the guest was up."""
        return launch_error(end, self._plan, self.command, self._said)

    def lost(self, end: PowerOff, console: list[str]) -> LostGuestError:
        """It has ended so while something was wanted of the guest; `console`: the guest's last lines."""
        return lost(end, self._plan, self.command, self._said, console)
