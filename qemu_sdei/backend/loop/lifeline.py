"""What a backend does when its owner goes: the end of its standard input tells it.

The guest runs on, if it is here; what it prints is kept, as far as there is room, for the owner that adopts it. The
backend of a guest that was to be killed with its owner, or that is not here (its owner was killed during a migration),
ends its QEMU.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from pathlib import Path
from typing import Final

from qemu_sdei import boundedlog, locks, rundir
from qemu_sdei.backend.loop.descriptors import Descriptors
from qemu_sdei.backend.loop.frame_hooks import FrameHooks
from qemu_sdei.fetching import fetching

_LAST_LOOK: Final = 0.5
"""Seconds to wait for the owner's end after QEMU's: it may be heard of just behind it."""
_CHUNK: Final = 1 << 16
_POLL: Final = 0.05
_LIMIT: Final = 10.0


def abandoned(directory: Path) -> bool:
    """Whether there is neither an owner nor a QEMU any more."""
    if not select.select([0], [], [], 0)[0]:
        return False
    lock = locks.try_lock(directory / rundir.QEMU_LOCK)
    if lock is not None:
        os.close(lock)
    return lock is not None


class Lifeline:
    """Standard input, which the owner holds the other end of."""

    def __init__(
        self,
        descriptors: Descriptors,
        hooks: FrameHooks,
        directory: Path,
        *,
        die_with_owner: bool,
        qemu_output: int | None = None,
    ) -> None:
        """`hooks` know whether guest RAM still arrives. `qemu_output`: the pipe with what QEMU says; the supervisor
        process reads it while it lives.
        """
        self._descriptors = descriptors
        self._hooks = hooks
        self._name = directory
        # The directory itself: when all that is in it has ended, its path may be that of another guest.
        self._fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._directory = Path(f"/proc/self/fd/{self._fd}")
        self._die = die_with_owner
        self._orphaned = False
        self._console: _Console | None = None
        self._output: _Output | None = None
        self._qemu_output = qemu_output
        descriptors.watch(0, self._heard)

    def _heard(self, _events: int) -> None:
        with contextlib.suppress(OSError):
            if os.read(0, 4096):
                return
        self._descriptors.unwatch(0)
        self._orphaned = True
        if self._qemu_output is not None:
            with contextlib.suppress(OSError):
                self._output = _Output(self._descriptors, self._qemu_output, self._directory / rundir.QEMU_LOG)
        here = (self._directory / rundir.RUN).exists()
        if self._die:
            self._end_qemu()
            return
        if not here or self._hooks.arriving:
            threading.Thread(target=self._see_fetched, args=(here,), daemon=True).start()
        if not here:
            return
        with contextlib.suppress(OSError):
            self._console = _Console(self._descriptors, self._directory)

    def _see_fetched(self, here: bool) -> None:
        """The owner was killed during a migration, perhaps by postcopy: wait until no RAM is to be fetched any more.

        Here or there the guest needs both QEMUs until then; also where it has not gone on yet, because the source's
        does not let it go on before.
        """
        while fetching(self._directory / rundir.QMP):
            time.sleep(_POLL)
        if not here:
            self._end_qemu()
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(_LIMIT)
            control.connect(str(self._directory / rundir.CONTROL))
            control.sendall(b'{"id": 1, "cmd": "arrived"}\n')
            control.recv(4096)

    def _end_qemu(self) -> None:
        locks.end_holders(self._directory / rundir.QEMU_LOCK)
        self._descriptors.stop()

    def close(self) -> None:
        """The service is over: remove the run directory if there is no owner to do it."""
        if self._console is not None:
            self._console.close()
        if self._output is not None:
            self._output.close()
        if self._orphaned or select.select([0], [], [], _LAST_LOOK)[0]:
            rundir.remove_if_dead(self._name)


class _Output:
    """What QEMU says, into its log."""

    def __init__(self, descriptors: Descriptors, fd: int, path: Path) -> None:
        """Raises `OSError`: the log cannot be written."""
        self._descriptors = descriptors
        self._fd = fd
        self._log = boundedlog.BoundedLog(path)
        descriptors.watch(fd, self._heard)

    def _heard(self, _events: int) -> None:
        if boundedlog.take(self._fd, self._log) is None:
            self._descriptors.unwatch(self._fd)

    def close(self) -> None:
        """Take what lies there, and read no more."""
        self._descriptors.unwatch(self._fd)
        boundedlog.drain(self._fd, self._log)
        self._log.close()


class _Console:
    """The guest's console, into the log."""

    def __init__(self, descriptors: Descriptors, directory: Path) -> None:
        """Raises `OSError`: somebody else is at the console, or the log cannot be written."""
        self._descriptors = descriptors
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._log: boundedlog.ConsoleLog | None = None
        try:
            self._socket.setblocking(False)
            self._socket.connect(str(directory / rundir.CONSOLE))
            self._log = boundedlog.ConsoleLog(directory / rundir.CONSOLE_LOG)
        except OSError:
            self._socket.close()
            raise
        descriptors.watch(self._socket.fileno(), self._heard)

    def _heard(self, _events: int) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        elif self._log is not None:
            self._log.write(data)

    def close(self) -> None:
        """Hang up."""
        if self._log is not None:
            self._descriptors.unwatch(self._socket.fileno())
            self._socket.close()
            self._log.close()
            self._log = None
