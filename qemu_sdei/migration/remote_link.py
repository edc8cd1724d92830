"""Connections between two hosts: one JSON line each way to begin with, then what the channel is for.

On the control channel: messages of one JSON line, each with as many bytes behind it as its field `bytes` says. What
comes from the other side is hostile until it was checked here (form, size, time) and by who asked for it (meaning).
docs/reference/migration-protocol.md
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qemu_sdei import jsonline
from qemu_sdei.errors import GuestError, ProtocolError, SdeiError
from qemu_sdei.message_log import MIGRATION

PROTOCOL: Final = 1
CONTROL: Final = "control"
RAM: Final = "ram"
OUTCOME: Final = "outcome"
CHANNELS: Final = (CONTROL, RAM, OUTCOME)
MAX_LINE: Final = 1 << 18
"""Bytes of a message without what follows it."""
MAX_HELLO: Final = 1 << 12
BUFFER: Final = 1 << 20
"""Bytes that are moved at once."""
SILENCE: Final = 60.0
"""Seconds that one side waits for the other's next word."""
_PEER: Final = "other host"
"""Who it is, for the debug log."""
_MAX_WORDS: Final = 1000
_CLOSE: Final = 5.0


class LostPeerError(GuestError):
    """The connection to the other side broke, or nothing came in time."""


class RefusedError(GuestError):
    """The other side does not do it; the message is its own, as far as it can be shown."""


def clean(text: object) -> str:
    """Words of the other side as they can be shown at a terminal: one line, no control characters, not endless."""
    words = "".join(character if character.isprintable() else " " for character in str(text)[: 2 * _MAX_WORDS])
    words = " ".join(words.split())
    return words if len(words) <= _MAX_WORDS else words[:_MAX_WORDS] + "..."


class Link:
    """One connection, from the hello on. For one task at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int = MAX_LINE) -> None:
        self.reader, self.writer = reader, writer
        self.limit = limit
        """Bytes that a message may have; small until it is known who talks."""

    async def send(self, message: dict[str, Any], blob: bytes | bytearray | memoryview = b"") -> None:
        """Send a message with the bytes that follow it. Raises `LostPeerError`."""
        if len(blob):
            message = message | {"bytes": len(blob)}
        MIGRATION.sent(_PEER, message)
        await self._write(jsonline.encode(message))
        if len(blob):
            await self._write(blob)

    async def send_file(self, message: dict[str, Any], path: Path, size: int) -> None:
        """Send a message with the first `size` bytes of a file behind it. Raises `LostPeerError`, `OSError`."""
        message = message | {"bytes": size}
        with path.open("rb") as file:
            MIGRATION.sent(_PEER, message)
            await self._write(jsonline.encode(message))
            left = size
            while left:
                part = await asyncio.to_thread(file.read, min(left, BUFFER))
                if not part:
                    raise OSError(None, "it has become shorter")
                await self._write(part)
                left -= len(part)

    async def _write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self.writer.write(data)
            async with asyncio.timeout(SILENCE):
                await self.writer.drain()
        except (OSError, RuntimeError) as error:
            raise _lost(error) from None

    async def receive(self, timeout: float = SILENCE) -> dict[str, Any]:
        """The next message. The bytes that it announces in `bytes` are to be read next.

        Raises:
            LostPeerError: the other side is gone, or silent for `timeout` seconds. `ProtocolError`: no message.
        """
        try:
            async with asyncio.timeout(timeout):
                message = await jsonline.read(self.reader, self.limit)
        except (OSError, RuntimeError) as error:
            raise _lost(error, timeout) from None
        if message is None:
            MIGRATION.received(_PEER, "(it has hung up)")
            raise LostPeerError("the other side has hung up")
        MIGRATION.received(_PEER, message)
        return message

    async def blob(self, message: dict[str, Any], limit: int, into: Callable[[bytes], object] | None = None) -> bytes:
        """The bytes behind `message`, at most `limit`; with `into` they are given to it part by part.

        Raises:
            LostPeerError: they do not come. `ProtocolError`: there are more. What `into` raises.
        """
        size = message.get("bytes", 0)
        if type(size) is not int or not 0 <= size <= limit:
            raise ProtocolError(f"a message has more behind it than the {limit} bytes that it may have")
        parts: list[bytes] = []
        while size:
            try:
                async with asyncio.timeout(SILENCE):
                    part = await self.reader.read(min(size, BUFFER))
            except (OSError, RuntimeError) as error:
                raise _lost(error) from None
            if not part:
                raise LostPeerError("the other side has hung up in the middle of a message")
            size -= len(part)
            (parts.append if into is None else into)(part)
        return b"".join(parts)

    async def answer(self, timeout: float = SILENCE) -> dict[str, Any]:
        """The answer to what was sent. Raises `RefusedError` with the other side's words, and as `receive`."""
        answer = await self.receive(timeout)
        if answer.get("ok") is True:
            return answer
        if answer.get("ok") is False and isinstance(answer.get("error"), str):
            raise RefusedError(clean(answer["error"]))
        raise ProtocolError("an answer is not of the protocol's form")

    async def ask(self, command: str, *, timeout: float = SILENCE, **fields: object) -> dict[str, Any]:
        """Send a command without bytes; return its answer. Raises as `answer` and `send`."""
        await self.send({"cmd": command, **fields})
        return await self.answer(timeout)

    async def close(self) -> None:
        """Hang up, once what was sent has left."""
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE):
                await self.writer.wait_closed()

    def abort(self) -> None:
        """Hang up at once."""
        with contextlib.suppress(AttributeError):  # of asyncio's TLS, in Python 3.11, where it has ended already
            self.writer.transport.abort()


def _lost(error: BaseException, timeout: float = SILENCE) -> SdeiError:
    if isinstance(error, TimeoutError) and not error.errno:
        return LostPeerError(f"the other side said nothing for {timeout:g} s")
    return LostPeerError(f"the connection to the other side broke ({getattr(error, 'strerror', None) or error})")


async def greet(link: Link, channel: str, token: str, timeout: float) -> dict[str, Any]:
    """Begin a connection as its client; return what the other side says of itself.

    Raises:
        RefusedError, LostPeerError, ProtocolError: it is not taken.
    """
    await link.send({"qemu-sdei": PROTOCOL, "channel": channel, "token": token})
    return await link.answer(timeout)


async def splice(
    one: tuple[asyncio.StreamReader, asyncio.StreamWriter], other: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    """Move bytes both ways until one side has ended; then both are closed, with all that was read written."""
    both = [asyncio.ensure_future(_move(one[0], other[1])), asyncio.ensure_future(_move(other[0], one[1]))]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        for _, writer in (one, other):
            writer.close()
    for _, writer in (one, other):
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(SILENCE):
                await writer.wait_closed()


async def _move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        while data := await reader.read(BUFFER):
            writer.write(data)
            await writer.drain()
        await writer.drain()
