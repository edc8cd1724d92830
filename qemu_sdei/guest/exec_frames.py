"""The frames by which host and agent (`guest/agent`) carry a command's bytes over a virtio serial port: pure.

Little endian. A frame is a head of 24 bytes, a payload, and a trailer of 4 bytes that is not zero. Whoever connects
begins with more zeroes than a frame has, so that half a frame of somebody who hung up ends before his `HELLO`; who
reads looks for the next head wherever one is not as it must be. Positions count a stream's bytes from its start: what
was not acknowledged is sent once more after a connection was lost, as by a migration.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

VERSION: Final = 1
MAGIC: Final = 0x31585351
TRAILER: Final = 0x21464F45
MOST_TO_GUEST: Final = 4096
"""Bytes of a payload for the agent."""
MOST_FROM_GUEST: Final = 16384
"""Bytes of one from the agent: more is no frame."""
WINDOW_IN: Final = 65536
"""Bytes of standard input that may be sent and not acknowledged."""
WINDOW_OUT: Final = 131072
"""The same of each output stream: what the agent keeps."""
MOST_COMMAND: Final = 65536
SESSION: Final = 16
"""Bytes of a session's name, which nobody can guess."""

_HEAD: Final = struct.Struct("<IBBHIIQ")
_END: Final = struct.pack("<I", TRAILER)
_HELLO: Final = struct.Struct(f"<{SESSION}sQQII")
_WELCOME: Final = struct.Struct(f"<{SESSION}sQII")
_START: Final = struct.Struct("<HHII")
_TOTALS: Final = struct.Struct("<QQ")
_SIZE: Final = struct.Struct("<HH")
_MARK: Final = struct.pack("<I", MAGIC)
FILLER: Final = bytes(_HEAD.size + MOST_TO_GUEST + len(_END))


class Type(IntEnum):
    """What a frame is."""

    HELLO = 1
    """To the agent: this session, from these positions of its output on."""
    WELCOME = 2
    """The answer: the session's state, and the position of its input."""
    READY = 3
    """The agent has just begun: whatever was before is gone."""
    START = 4
    """Start the command that was sent."""
    DATA = 5
    """Bytes of a stream from a position on."""
    ACK = 6
    """A stream was received, or read by the command, up to a position."""
    END = 7
    """Standard input ends at a position."""
    EXIT = 8
    """The command has ended, its status is the position; all its output was sent."""
    DONE = 9
    """The host has all of it: the session is over."""
    SIZE = 10
    """Rows and columns of the terminal."""
    SIGNAL = 11
    """Send the command a signal; the position is its number."""
    CLOSE = 12
    """The host wants no more: end the command."""
    PING = 13
    PONG = 14
    FAIL = 15
    """The command cannot be started; the payload says why."""


class Stream(IntEnum):
    """Which stream of a command."""

    INPUT = 0
    OUTPUT = 1
    ERRORS = 2
    COMMAND = 3


class State(IntEnum):
    """What a session is, as the agent says."""

    IDLE = 0
    """It waits for a command."""
    RUNS = 1
    """Its command was started."""
    WAITS = 2
    """The guest's own command waits to be started."""
    GONE = 3
    """It cannot go on: it is somebody else's, or of another version."""


_TYPES: Final = frozenset(map(int, Type))
_STATES: Final = frozenset(map(int, State))


@dataclass(frozen=True)
class Frame:
    """One frame."""

    type: Type
    stream: int = 0
    position: int = 0
    payload: bytes = b""

    def encode(self) -> bytes:
        """As bytes."""
        return _HEAD.pack(MAGIC, self.type, self.stream, 0, len(self.payload), 0, self.position) + self.payload + _END


@dataclass(frozen=True)
class Welcome:
    """The payload of `WELCOME`."""

    session: bytes
    input: int
    version: int
    state: State


def hello(session: bytes, output: int, errors: int) -> bytes:
    """What a connection begins with."""
    return FILLER + Frame(Type.HELLO, payload=_HELLO.pack(session, output, errors, VERSION, 0)).encode()


def start(rows: int, columns: int, *, terminal: bool, command: int) -> bytes:
    """Start a command of so many bytes, on a terminal of that size if it is to have one."""
    return Frame(Type.START, payload=_START.pack(rows & 0xFFFF, columns & 0xFFFF, int(terminal), command)).encode()


def size(rows: int, columns: int) -> bytes:
    """The terminal has another size."""
    return Frame(Type.SIZE, payload=_SIZE.pack(rows & 0xFFFF, columns & 0xFFFF)).encode()


def welcome(payload: bytes) -> Welcome | None:
    """The payload of a `WELCOME`; None: it is none."""
    if len(payload) != _WELCOME.size:
        return None
    session, taken, version, state = _WELCOME.unpack(payload)
    return Welcome(session, taken, version, State(state)) if state in _STATES else None


def totals(payload: bytes) -> tuple[int, int] | None:
    """The payload of an `EXIT`: bytes of output and errors. None: it is none."""
    if len(payload) != _TOTALS.size:
        return None
    output, errors = _TOTALS.unpack(payload)
    return output, errors


class Reader:
    """Takes the bytes of a guest in pieces; gives the frames in them. It never holds more than one frame."""

    def __init__(self) -> None:
        self._data = bytearray()

    def clear(self) -> None:
        """A new connection."""
        self._data.clear()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with `data`; what is none is left out."""
        self._data += data
        at = 0
        try:
            while True:
                at = self._data.find(_MARK, at)
                if at < 0:
                    at = max(len(self._data) - len(_MARK) + 1, 0)
                    return
                if len(self._data) - at < _HEAD.size:
                    return
                _, kind, stream, zero, length, zero_too, position = _HEAD.unpack_from(self._data, at)
                if kind not in _TYPES or zero or zero_too or length > MOST_FROM_GUEST:
                    at += 1
                    continue
                end = at + _HEAD.size + length
                if len(self._data) < end + len(_END):
                    return
                if self._data[end : end + len(_END)] != _END:
                    at += 1
                    continue
                payload = bytes(self._data[at + _HEAD.size : end])
                at = end + len(_END)
                yield Frame(Type(kind), stream, position, payload)
        finally:
            del self._data[:at]
