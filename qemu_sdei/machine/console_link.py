"""The supervisor's end of the guest's console: bytes in (to the text, the log and whoever looks on), bytes out."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qemu_sdei.machine.console import Console

LOG_LIMIT: Final = 16 << 20
"""Bytes of console.log: the runtime directory is small, and in memory."""
_DRAIN_TURNS: Final = 1000


class ConsoleLink(asyncio.Protocol):
    """A connection to QEMU's console chardev, for use in one event loop."""

    def __init__(self, console: Console, log: Path) -> None:
        self.sink: Callable[[bytes], None] | None = None
        """Receives the raw bytes too; it must not block."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when QEMU's end is closed and everything was read."""
        self._console = console
        self._log = log.open("ab", buffering=0)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the connection (called by asyncio)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes from the guest (called by asyncio)."""
        with contextlib.suppress(OSError):  # a full disk must not end the guest
            if self._log.tell() < LOG_LIMIT:
                self._log.write(data)
        self._console.feed(data)
        if self.sink is not None:
            self.sink(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end (called by asyncio)."""
        self._log.close()
        if not self.lost.done():
            self.lost.set_result(None)

    def write(self, data: bytes) -> None:
        """Type `data` at the guest's console; buffered, never blocks."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until everything that lies in the socket was read; for a QEMU that writes nothing any more."""
        if self._transport is None or self._transport.is_closing():
            return
        fd: int = self._transport.get_extra_info("socket").fileno()
        waiting = bytearray(4)
        for _ in range(_DRAIN_TURNS):
            fcntl.ioctl(fd, termios.FIONREAD, waiting)
            if not any(waiting):
                return
            await asyncio.sleep(0)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()
