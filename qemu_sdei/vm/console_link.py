"""The owner's end of the guest's console: bytes in (to the text, the log and whoever looks on), bytes out."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qemu_sdei.boundedlog import ConsoleLog
from qemu_sdei.vm.console import Console

_CHUNK: Final = 1 << 16
_REMEMBERED: Final = 4096
"""Bytes that were sent and may be unread; the kernel takes a few hundred."""


class ConsoleLink:
    """A connection to QEMU's console chardev, for use in one event loop."""

    def __init__(self, connection: socket.socket, console: Console, log: Path) -> None:
        """Use `connection` (non-blocking), which is this object's from now on. Raises `OSError`: no log can be made."""
        self.sink: Callable[[bytes], None] | None = None
        """Receives the raw bytes too; it must not block."""
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when QEMU's end is closed and everything was read."""
        self._console = console
        self._log = ConsoleLog(log)
        self._socket = connection
        self._output = bytearray()
        self._sent = bytearray()
        self._waiting = False
        self._loop.add_reader(connection.fileno(), self._read)

    def _read(self) -> bool:
        """Take what came from the guest. False: there is nothing now."""
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        self._log.write(data)
        self._console.feed(data)
        if self.sink is not None:
            self.sink(data)
        return True

    def write(self, data: bytes) -> None:
        """Type `data` at the guest's console; buffered, never blocks."""
        if not self.lost.done():
            self._output += data
            if not self._waiting:
                self._send()

    def _send(self) -> None:
        """Byte by byte: then the kernel can tell how many of them QEMU has not read (`unread`)."""
        sent = 0
        try:
            while sent < len(self._output):
                self._socket.send(self._output[sent : sent + 1])
                sent += 1
        except BlockingIOError:
            pass
        except OSError:
            sent = len(self._output)  # nobody is there: the reader hears of it
        self._sent += self._output[:sent]
        del self._sent[:-_REMEMBERED]
        del self._output[:sent]
        if bool(self._output) != self._waiting:
            self._waiting = not self._waiting
            if self._waiting:
                self._loop.add_writer(self._socket.fileno(), self._send)
            else:
                self._loop.remove_writer(self._socket.fileno())

    @property
    def backlog(self) -> int:
        """Bytes that were typed and do not fit into the socket yet."""
        return len(self._output)

    def unread(self) -> bytes:
        """What was typed and QEMU has not read; for a QEMU that reads nothing any more."""
        if self.lost.done():
            return bytes(self._output)
        waiting = _unsent(self._socket) // _byte_charge()
        return bytes(self._sent[len(self._sent) - waiting :] + self._output)

    def drain(self) -> None:
        """Take everything that lies in the socket; for a QEMU that writes nothing any more."""
        while not self.lost.done() and self._read():
            pass

    def close(self) -> None:
        """Hang up."""
        if self.lost.done():
            return
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._log.close()
        self.lost.set_result(None)


def _unsent(connection: socket.socket) -> int:
    """What the kernel charges for what the other end has not read (unix(7), SIOCOUTQ): bytes and their book-keeping."""
    count: int = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    return count


def _byte_charge() -> int:
    """What it charges for one byte that was sent alone."""
    one, other = socket.socketpair()
    with one, other:
        one.send(b"\0")
        return max(_unsent(one), 1)
