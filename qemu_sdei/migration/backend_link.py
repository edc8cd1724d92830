"""One backend's control socket, as the one who hands a guest over uses it (asyncio).

A freeze belongs to the connection: when it is closed, or the process that holds it dies, the guest goes on.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any, Final

from qemu_sdei import jsonline, stopped
from qemu_sdei.errors import GuestTimeoutError, LostGuestError
from qemu_sdei.message_log import CONTROL

_LIMIT: Final = 1 << 20
_CONNECT: Final = 10.0
"""Seconds to connect: one that is stopped lets others wait once its queue is full."""
_RETRY: Final = 0.05
_ANSWER: Final = "the backend's answer"


class BackendLink:
    """A connection to a control socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: Path) -> None:
        self._reader, self._writer, self._path = reader, writer, path
        self._number = 0

    @classmethod
    async def open(cls, path: Path) -> BackendLink:
        """Connect. Raises `LostGuestError`."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT):
                await _connect(connection, path)
                return cls(*await asyncio.open_unix_connection(sock=connection, limit=_LIMIT), path)
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError):
                raise
            raise LostGuestError(
                f"the backend does not answer at {path}: {error.strerror or 'in time'}{stopped.reason(path.parent)}"
            ) from None

    async def request(self, command: str, *, timeout: float = 10.0, **arguments: object) -> dict[str, Any]:
        """Send one request and return its result; `timeout` in seconds.

        Raises:
            UsageError, NotDeliveredError, BusyError, SdeiError: what the backend said. `LostGuestError`: it is gone.
            GuestTimeoutError: no answer in time. `ProtocolError`: it is none.
        """
        self._number += 1
        message = {"id": self._number, "cmd": command, **arguments}
        whom = f"backend of {self._path.parent.name}"
        CONTROL.sent(whom, message)
        try:
            self._writer.write(jsonline.encode(message))
            async with asyncio.timeout(timeout):
                await self._writer.drain()
                answer = await self._answer()
        except TimeoutError:
            raise GuestTimeoutError(
                f"the backend did not answer {command} within {timeout:g} s{stopped.reason(self._path.parent)}"
            ) from None
        except OSError as error:
            raise LostGuestError(f"the backend went away during {command} ({error.strerror or error})") from None
        CONTROL.received(whom, answer)
        return jsonline.CONTROL.result(answer, f"{_ANSWER} to {command}")

    async def _answer(self) -> dict[str, Any]:
        while True:
            answer = await jsonline.read(self._reader, _LIMIT, _ANSWER)
            if answer is None:
                raise ConnectionResetError("it hung up")
            if answer.get("id") == self._number:
                return answer

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


async def _connect(connection: socket.socket, path: Path) -> None:
    """Connect to a unix socket as soon as its queue has room. (asyncio takes a queue that is full for a success.)"""
    while True:
        try:
            connection.connect(str(path))
            return
        except BlockingIOError:
            await asyncio.sleep(_RETRY)
