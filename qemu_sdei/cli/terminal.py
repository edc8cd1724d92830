"""The guest's console on the user's terminal: raw mode in, bytes out, and the terminal as it was afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from typing import Final

from qemu_sdei.cli.streams import output_lost
from qemu_sdei.guest.guest import Guest

QUIT: Final = b"\x1d"
"""Ctrl-], as in telnet and virsh."""
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


@contextlib.contextmanager
def raw_mode(fd: int) -> Iterator[bool]:
    """Put the terminal `fd` into raw mode for a while; yields False, and does nothing, when it is none."""
    if not os.isatty(fd):
        yield False
        return
    before = termios.tcgetattr(fd)
    try:
        # NOW, here and below: a terminal that was stopped (Ctrl-S) or hung up must not hold us.
        tty.setraw(fd, termios.TCSANOW)
        yield True
    finally:
        with contextlib.suppress(termios.error):
            # Late answers of the terminal to the guest's questions are not for the user's shell.
            termios.tcflush(fd, termios.TCIFLUSH)
            termios.tcsetattr(fd, termios.TCSANOW, before)


class Session:
    """One interactive session. `attach` before the guest starts, so that nothing of its output is missed."""

    def __init__(self, guest: Guest, greeting: bytes = b"") -> None:
        """`greeting` is shown when the guest's shell is there."""
        self._guest = guest
        self._output = _Output()
        self._filter = MarkerFilter(greeting)
        guest.attach(self._output.put)

    def close(self) -> None:
        """Let go of the guest."""
        self._guest.attach(None)
        self._output.close()

    def run(self) -> bool:
        """Connect terminal and guest until the guest ends (True) or the user wants to quit (False)."""
        stdin = sys.stdin.fileno()
        with raw_mode(stdin) as terminal:
            poll = select.poll()
            poll.register(self._output.fileno(), select.POLLIN)
            listening = False
            piped = b""
            crowded = False
            while True:
                # Linux drops what lies in its UART when it takes it over: input of a pipe, there at once, waits.
                if not listening and (terminal or self._guest.booted):
                    listening = True
                    poll.register(stdin, select.POLLIN)
                if crowded and self._guest.input_backlog() <= _TYPED:
                    crowded = False
                    poll.register(stdin, select.POLLIN)
                ready = dict(poll.poll(_CROWDED_MS if crowded else _LOOK_MS))
                if self._output.fileno() in ready:
                    self._output.clear_wake()
                if not self._show():
                    return False
                if stdin in ready:
                    data = self._read(stdin)
                    if not data:
                        if terminal:
                            return False  # hung up
                        poll.unregister(stdin)
                        if piped:
                            # `echo uname | qemu-sdei run` ends; a guest in the background, with /dev/null, does not.
                            self._guest.end_input(piped.endswith((b"\n", b"\r")))
                    elif not terminal:
                        piped = data[-1:]
                    typed, quit_key, _ = data.partition(QUIT) if terminal else (data, b"", b"")
                    if typed:
                        self._guest.write(typed)
                    if not terminal and self._guest.input_backlog() > _TYPED:
                        crowded = True
                        poll.unregister(stdin)
                    if quit_key:
                        return False
                if self._guest.power_off is not None:
                    self._show()
                    return True

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
