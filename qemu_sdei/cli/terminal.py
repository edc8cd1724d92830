"""The guest's console on the user's terminal: raw mode in, bytes out, and the terminal as it was afterwards.

The console is that of a guest of this process (`run`), or of another one's (`console`): a `Source` of bytes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from enum import Enum
from typing import Final, Protocol

from qemu_sdei.cli.own_terminal import OwnTerminal, terminal_size
from qemu_sdei.cli.streams import output_lost

ESCAPE: Final = b"\x1d"
"""Ctrl-], as in telnet and virsh."""
_DETACH: Final = b"dD"
_QUIT: Final = b"qQ"
_EARLY: Final = 64 << 10
"""Bytes that were typed before the guest's shell is there, and are kept for it."""
_BACKLOG: Final = 4 << 20
"""Bytes that wait for a terminal that does not take them; beyond this the oldest are dropped, the guest never waits."""
_TYPED: Final = 64 << 10
"""Bytes of piped input that may wait for the guest to read them; then no more is read from the pipe."""
_LOOK_MS: Final = 500
_CROWDED_MS: Final = 20
_MARKER: Final = b"\x1eqemu-sdei:"


class MarkerFilter:
    """Takes our initramfs' markers (see `qemu_sdei.guest.shell`) out of what a person sees.

    `greeting` is shown in place of the one that says that the shell is there: by then the kernel's messages have taken
    away everything that was said before.
    """

    def __init__(self, greeting: bytes = b"") -> None:
        self._greeting = greeting
        self._held = b""
        self._line_end = False

    def feed(self, data: bytes) -> bytes:
        """What of `data`, and of what was held back, is to be shown."""
        data = self._held + data
        self._held = b""
        out = bytearray()
        while data:
            if self._line_end:
                # The marker's own line end goes with it.
                stripped = data.lstrip(b"\r")
                if not stripped:
                    break
                self._line_end = False
                data = stripped[1:] if stripped[:1] == b"\n" else data
                continue
            at = data.find(b"\x1e")
            if at < 0:
                out += data
                break
            out += data[:at]
            data = data[at:]
            end = data.find(b"\x1e", 1)
            if end < 0 and len(data) < 128 and (data.startswith(_MARKER) or _MARKER.startswith(data)):
                self._held = data
                break
            if end > 0 and data.startswith(_MARKER):
                if data[:end].endswith(b":shell"):
                    out += self._greeting
                data = data[end + 1 :]
                self._line_end = True
            else:
                out += data[:1]
                data = data[1:]
        return bytes(out)


class _Output:
    """Console bytes on their way from the guest's event loop to the main thread."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._lock = threading.Lock()
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)

    def fileno(self) -> int:
        return self._read_end

    def put(self, data: bytes) -> None:
        with self._lock:
            self._data += data
            del self._data[:-_BACKLOG]
        with contextlib.suppress(OSError):
            os.write(self._write_end, b"\0")

    def take(self) -> bytes:
        with self._lock:
            data = bytes(self._data)
            self._data.clear()
        return data

    def clear_wake(self) -> None:
        os.read(self._read_end, 65536)

    def close(self) -> None:
        os.close(self._read_end)
        os.close(self._write_end)


class End(Enum):
    """How a session ended."""

    ENDED = "the guest has ended"
    QUIT = "the user wants it to end, or the terminal is gone"
    DETACHED = "the user wants to leave it alone"


class Source(Protocol):
    """A guest's console, as a session needs it."""

    def write(self, data: bytes) -> bool:
        """Type `data`. False: somebody else types now."""

    def backlog(self) -> int:
        """Bytes that were typed and that the guest has no room for yet."""

    def listens(self) -> bool:
        """Somebody in the guest reads what is typed; what is typed before may be lost."""

    def end_input(self, line_ended: bool) -> None:
        """A pipe that was typed from has ended."""

    def ended(self) -> bool:
        """Nothing more will come."""

    def lost_words(self) -> str:
        """Why `write` was refused, in words."""

    def size(self, rows: int, columns: int) -> None:
        """The user's terminal has that size."""


@contextlib.contextmanager
def _not_stopped() -> Iterator[None]:
    """In the background neither reading nor writing stops this process, silently: it reads only what is its own."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTTIN, signal.SIGTTOU)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Session:
    """One interactive session. `put` takes the console's bytes, from any thread."""

    def __init__(self, greeting: bytes = b"", *, asks: bool = True) -> None:
        """`greeting` is shown when the guest's shell is there. `asks`: Ctrl-] asks what is wanted; else it leaves."""
        self._output = _Output()
        self._filter = MarkerFilter(greeting)
        self._asks = asks
        self._asking = False
        self._early = bytearray()
        self._told = False

    def put(self, data: bytes) -> None:
        """Bytes to show."""
        self._output.put(data)

    def close(self) -> None:
        """Let go of the terminal; `put` must not be called any more."""
        self._output.close()

    def run(self, source: Source, *, typing: bool = True) -> End:
        """Connect the terminal and `source` until either ends. `typing`: else it is only looked at."""
        stdin = sys.stdin.fileno()
        with _not_stopped(), OwnTerminal(stdin) as terminal:
            poll = select.poll()
            poll.register(self._output.fileno(), select.POLLIN)
            listening = ended = False
            piped = b""
            while True:
                crowded = not terminal.there and source.backlog() > _TYPED
                # Linux drops what lies in its UART when it takes it over: input of a pipe, there at once, waits.
                wanted = terminal.look() if terminal.there else typing and not ended and not crowded
                if not terminal.there and not listening and not source.listens():
                    wanted = False
                if wanted != listening:
                    listening = wanted
                    poll.register(stdin, select.POLLIN) if wanted else poll.unregister(stdin)
                if typing and terminal.raw and source.listens():
                    source.size(*terminal_size())
                if self._early and source.listens():
                    early, self._early = bytes(self._early), bytearray()
                    self._type(source, early)
                ready = dict(poll.poll(_CROWDED_MS if crowded or self._early else _LOOK_MS))
                if self._output.fileno() in ready:
                    self._output.clear_wake()
                if not self._show():
                    return End.QUIT
                if stdin in ready and (not terminal.there or terminal.ours):
                    data = self._read(stdin)
                    if not data:
                        if terminal.there and not terminal.ours:
                            continue
                        if terminal.there:
                            return End.QUIT if self._asks else End.DETACHED  # hung up
                        ended = True
                        if piped:
                            # `echo uname | qemu-sdei run` ends; a guest in the background, with /dev/null, does not.
                            source.end_input(piped.endswith((b"\n", b"\r")))
                    elif not terminal.there:
                        piped = data[-1:]
                        source.write(data)
                    elif (end := self._keys(source, data, typing)) is not None:
                        return end
                if source.ended():
                    self._show()
                    return End.ENDED

    def _keys(self, source: Source, data: bytes, typing: bool) -> End | None:
        """What was typed at a terminal. Returns how the session is to end, if it is."""
        while data:
            if self._asking:
                key, data = data[:1], data[1:]
                self._asking = False
                self._say("\r\n")
                if key in (_DETACH[:1], _DETACH[1:]):
                    return End.DETACHED
                if key in (_QUIT[:1], _QUIT[1:]):
                    return End.QUIT
                if key == ESCAPE and typing:
                    self._type(source, key)
                continue
            typed, escape, data = data.partition(ESCAPE)
            if typed and typing:
                self._type(source, typed)
            if escape and not self._asks:
                return End.DETACHED
            if escape:
                self._asking = True
                self._say(
                    "\r\n[qemu-sdei] d: detach, the guest runs on; q: end the guest; Ctrl-]: send Ctrl-]; "
                    "any other key: back "
                )
        return None

    def _type(self, source: Source, data: bytes) -> None:
        if not source.listens():
            # What a terminal sends before anybody reads is kept, and not lost to a driver that starts.
            self._early += data[: _EARLY - len(self._early)]
            return
        if source.write(data):
            self._told = False
        elif not self._told:
            self._told = True
            self._say(f"\r\n[qemu-sdei] {source.lost_words()}\r\n")

    @staticmethod
    def _say(text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(2, text.encode())

    def _show(self) -> bool:
        data = self._filter.feed(self._output.take())
        try:
            while data:
                try:
                    data = data[os.write(1, data) :]
                except BlockingIOError:  # somebody has it not block: a program that shares the terminal
                    select.select((), (1,), (), 1.0)
        except BrokenPipeError:
            raise
        except OSError as error:
            if (lost := output_lost(error)) is not None:
                raise lost from None
            return False  # nobody looks any more
        return True

    @staticmethod
    def _read(fd: int) -> bytes:
        try:
            return os.read(fd, 4096)
        except OSError:
            return b""
