"""The supervisor's end of a guest's console: what is typed goes to QEMU, or is kept while nobody may read it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

from qemu_sdei import rundir as files
from qemu_sdei.boundedlog import TIMES
from qemu_sdei.errors import LaunchError
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.console_link import ConsoleLink

Sink = Callable[[bytes], None]
"""Is given the console's raw bytes, in the event loop: it must not block."""


class ConsoleEnd:
    """For use in one event loop. Before `connect`, and after `close`, what is typed is lost."""

    def __init__(self, directory: Path, console: Console) -> None:
        """`directory`: the run directory. `console`: is fed."""
        self.sink: Sink | None = None
        """Who looks on."""
        self._directory = directory
        self._console = console
        self._link: ConsoleLink | None = None
        self._held = bytearray()
        self._holding = False

    def connect(self) -> None:
        """Connect to QEMU. Raises `LaunchError`."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.connect(str(self._directory / files.CONSOLE))
            self._link = ConsoleLink(connection, self._console, self._directory / files.CONSOLE_LOG)
        except OSError as error:
            connection.close()
            raise LaunchError(f"the guest's console cannot be reached: {error.strerror or error}") from None
        self._link.sink = self.sink

    def write(self, data: bytes) -> None:
        """Type `data`; buffered, never blocks."""
        if self._holding:
            self._held += data
        elif self._link is not None:
            self._link.write(data)

    def hold(self, holding: bool) -> None:
        """Keep what is typed, or let QEMU have it."""
        self._holding = holding
        if not holding and self._held:
            held, self._held = bytes(self._held), bytearray()
            self.write(held)

    @property
    def backlog(self) -> int:
        """Bytes that were typed and wait here."""
        return len(self._held) + (0 if self._link is None else self._link.backlog)

    def attach(self, sink: Sink | None) -> None:
        """Have the console's raw bytes given to `sink` too (in the event loop: it must not block)."""
        self.sink = sink
        if self._link is not None:
            self._link.sink = sink

    def unread(self) -> bytes:
        """What was typed and QEMU has not read; for a guest that goes on elsewhere."""
        return (b"" if self._link is None else self._link.unread()) + bytes(self._held)

    def drain(self) -> None:
        """Take what a QEMU that writes no more has written."""
        if self._link is not None:
            self._link.drain()

    def log(self) -> tuple[bytes, ...] | None:
        """What was printed, as far as the log has it, and when; None: it cannot be read."""
        with contextlib.suppress(OSError):
            return tuple(path.read_bytes() for path in self._logs if path.exists())
        return None

    def take_over(self, said: tuple[bytes, ...] | None) -> None:
        """What was printed before, at another QEMU."""
        with contextlib.suppress(OSError):
            for path, data in zip(self._logs, said or (), strict=False):
                path.write_bytes(data)

    @property
    def _logs(self) -> tuple[Path, Path]:
        return self._directory / files.CONSOLE_LOG, self._directory / f"{files.CONSOLE_LOG}{TIMES}"

    @property
    def lost(self) -> asyncio.Future[None]:
        """Done when QEMU's end is closed and everything was read; after `connect`."""
        assert self._link is not None
        return self._link.lost

    def close(self) -> None:
        """Hang up."""
        if self._link is not None:
            self._link.close()
