"""Processes of a guest, our children or adopted, and what became of them in words.

asyncio's own subprocesses are not used: in Python 3.11 sending a signal to one can lose its exit status to a race, and
each has a thread that waits for it. A pidfd (Linux 5.3) does without both.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_LOG_TAIL: Final = 4096


UNKNOWN: Final = 256
"""Exit status of a process that is not our child: the kernel does not tell it."""


class Process:
    """A process, for use in one event loop."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        """Exit status; negative: the signal that killed it; None while it runs."""
        self._ended = asyncio.Event()
        self._pidfd = pidfd
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._on_end)

    def _status(self) -> int:
        return UNKNOWN

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.returncode = self._status()
        self.close_stdin()
        self._ended.set()

    async def wait(self) -> int:
        """Wait for the end; return the exit status."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass

    def close_stdin(self) -> None:
        """Close our end of the pipe to its standard input."""

    def forget(self) -> None:
        """Watch it no longer; it goes on."""
        if self.returncode is None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self.returncode = UNKNOWN

    async def end(self, grace: float) -> None:
        """Wait up to `grace` seconds for it to end by itself, then kill it."""
        try:
            await asyncio.wait_for(self.wait(), grace)
        except TimeoutError:
            self.kill()
            await self.wait()


class Child(Process):
    """A child process."""

    def __init__(
        self, argv: Sequence[str], *, pass_fds: Sequence[int], log: Path | int, stdin_pipe: bool, die_with_parent: bool
    ) -> None:
        """Start `argv`, its output appended to `log` (or written to a descriptor, which stays open here), in a session
        of its own (Ctrl-C is for the supervisor).

        `die_with_parent`: the kernel kills it when the calling *thread* ends, so this must run in a thread that lives
        as long as the guest. (PR_SET_PDEATHSIG by util-linux' setpriv: Python's own preexec_fn is not safe with
        threads.) `stdin_pipe`: its standard input is a pipe whose other end closes with this process; otherwise it is
        /dev/null. Raises `OSError`.
        """
        if die_with_parent and (setpriv := shutil.which("setpriv")):
            argv = [setpriv, "--pdeathsig", "KILL", "--", *argv]
        with open(log, "ab", closefd=isinstance(log, Path)) as output:
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if stdin_pipe else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=tuple(pass_fds),
                start_new_session=True,
            )
        super().__init__(self._popen.pid, os.pidfd_open(self._popen.pid))

    def _status(self) -> int:
        return self._popen.wait()

    def close_stdin(self) -> None:
        """Close our end of the pipe to its standard input."""
        if self._popen.stdin is not None:
            self._popen.stdin.close()


def log_size(log: Path) -> int:
    """Bytes in a log file; 0 when there is none."""
    try:
        return log.stat().st_size
    except OSError:
        return 0


_CHATTER: Final = re.compile(r"^[^\s:]*qemu[^\n]*: info: QEMU waiting for connection on: [^\n]*\n?", re.MULTILINE)
"""What QEMU says each time of a socket that it waits at; ours is connected already."""


def log_tail(log: Path, since: int = 0) -> str:
    """The last few KiB of a log file, of what is behind its first `since` bytes; empty when there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(since if since <= size else 0, size - _LOG_TAIL, 0))  # it may have been cut meanwhile
            return _CHATTER.sub("", file.read().decode(errors="replace")).strip()
    except OSError:
        return ""


def complaints(output: str) -> list[str]:
    """QEMU's error messages in its `output`, without its own name and warnings."""
    found = re.findall(r"^[^\s:]*qemu[^\s:]*: *(.+)$", output, re.MULTILINE)
    return [text.strip() for text in found if not text.startswith(("warning:", "info:", "terminating on signal"))]


def describe_exit(returncode: int) -> str:
    """How a process ended, as the end of a sentence: "was killed by SIGKILL", "ended with status 1"."""
    if returncode == UNKNOWN:
        return "ended, nobody knows how (it was started by an owner that is gone)"
    if returncode < 0:
        try:
            name = signal.Signals(-returncode).name
        except ValueError:
            name = f"signal {-returncode}"
        return f"was killed by {name}"
    return f"ended with status {returncode}"
