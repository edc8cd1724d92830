"""The connection by which one QEMU sends a guest to another on this host.

One that we make and hand to both: nobody else can come first, and how much of it is still on its way can be seen. With
`multifd` QEMU wants to make its connections itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
import time
from pathlib import Path
from typing import Any, Final

from qemu_sdei.errors import GuestError, GuestTimeoutError
from qemu_sdei.migration.options import UNIX, MigrationOptions
from qemu_sdei.migration.source import Side, execute

_SOCKET: Final = "migration.sock"
_NAME: Final = "migration"
_POLL: Final = 0.001
_DRAIN: Final = 10.0
_LOOPBACK: Final = "127.0.0.1"


class Wire:
    """A connection from `source`'s QEMU to `destination`'s. `listen`, then migrate to `uri`; `close` at the end."""

    def __init__(self, source: Side, destination: Side, options: MigrationOptions) -> None:
        self._source, self._destination = source, destination
        self._options = options
        self._kept: socket.socket | None = None
        """The source's end of a unix socket. Not the other one: that would hide from the source that it was closed."""
        self._addresses: tuple[tuple[str, int], tuple[str, int]] | None = None
        """Of the ends of a TCP connection."""
        self.uri = ""

    async def listen(self) -> None:
        """Have the destination's QEMU, which waits for it, take what comes. Raises `GuestError`."""
        if self._options.multifd:
            await self._listen_for_many()
            return
        here, there = socket.socketpair() if self._options.transport == UNIX else _tcp_pair()
        self.uri = f"fd:{_NAME}"
        with there:
            self._kept = here
            await self._source.pass_fd(_NAME, here.fileno())
            await self._destination.pass_fd(_NAME, there.fileno())
            if self._options.transport != UNIX:
                self._addresses = here.getsockname(), there.getsockname()
                self.close()
        await execute(self._destination, "migrate-incoming", uri=self.uri)

    async def _listen_for_many(self) -> None:
        path: Path = self._destination.path / _SOCKET
        if self._options.transport == UNIX:
            self.uri = f"unix:{path}"
            await execute(self._destination, "migrate-incoming", uri=self.uri)
            return
        await execute(self._destination, "migrate-incoming", uri=f"tcp:{_LOOPBACK}:0")
        there: dict[str, Any] = await execute(self._destination, "query-migrate")
        for address in there.get("socket-address", ()):
            self.uri = f"tcp:{address['host']}:{address['port']}"
            return
        raise GuestError("the destination's QEMU does not say at which TCP port it listens")

    async def drained(self) -> None:
        """Wait until the destination's QEMU has dealt with all that was sent so far. For one connection.

        Raises:
            GuestTimeoutError: it does not.
        """
        deadline = time.monotonic() + _DRAIN
        quiet = 0
        # What it has read it deals with in its main loop, which answers QMP too: but not both at once.
        while quiet < 2:
            if time.monotonic() > deadline:
                raise GuestTimeoutError(f"the destination's QEMU did not read what was sent within {_DRAIN:g} s")
            if self._on_its_way():
                quiet = 0
                await asyncio.sleep(_POLL)
                continue
            quiet += 1
            await execute(self._destination, "query-status")

    def _on_its_way(self) -> bool:
        """Whether there is anything that the destination has not read."""
        if self._kept is not None:
            # unix(7): what was written and not yet read by the peer.
            (count,) = struct.unpack("i", fcntl.ioctl(self._kept, termios.TIOCOUTQ, bytes(4)))
            return bool(count)
        assert self._addresses is not None
        here, there = (
            f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}" for host, port in self._addresses
        )
        for line in Path("/proc/net/tcp").read_text().splitlines():
            # proc(5): sl, local address, remote address, st, tx_queue:rx_queue.
            words = line.split()
            if words[1:3] in ([here, there], [there, here]) and words[4] != "00000000:00000000":
                return True
        return False

    def close(self) -> None:
        """Leave the connection to the two QEMUs."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection over the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((_LOOPBACK, 0))
        listener.listen()
        here = socket.create_connection(listener.getsockname())
        here.settimeout(None)
        while True:
            there, peer = listener.accept()
            if peer == here.getsockname():  # and not somebody else of this host
                return here, there
            with contextlib.suppress(OSError):
                there.close()
