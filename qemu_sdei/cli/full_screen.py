"""The whole terminal for a while: the alternate screen, keys as they are typed, and everything as it was afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from qemu_sdei.cli.key_reader import KeyReader
from qemu_sdei.cli.screen import raw

_READ: Final = 4096
_LEAVE: Final = "\x1b[?1049l\x1b[?25h\x1b[0m"
"""Alternate screen off, cursor on, no colours: where rich could not do it itself."""
_LEAST: Final = (20, 5)


class FullScreen:
    """The terminal at standard input and output; `opened` gives it back whatever happens."""

    def __init__(self) -> None:
        self._stdin = sys.stdin.fileno()
        # The terminal says how large it is: COLUMNS and LINES, by which rich goes first, do not change with it.
        known = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self._console = Console(file=raw(sys.stdout), highlight=False, _environ=known)
        self._live: Live | None = None
        self._keys = KeyReader()
        self._before: list[Any] | None = None
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)

    @staticmethod
    def possible() -> bool:
        """Standard input and output are a terminal that can be drawn on."""
        with contextlib.suppress(OSError, ValueError):
            return sys.stdin.isatty() and sys.stdout.isatty() and not Console(file=raw(sys.stdout)).is_dumb_terminal
        return False

    @contextlib.contextmanager
    def opened(self) -> Iterator[FullScreen]:
        """Take the terminal, and give it back."""
        before = signal.signal(signal.SIGWINCH, self._resized)
        try:
            self._enter()
            yield self
        finally:
            signal.signal(signal.SIGWINCH, before)
            self._leave()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _enter(self) -> None:
        self._before = termios.tcgetattr(self._stdin)
        mode = termios.tcgetattr(self._stdin)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        # Ctrl-Z is a key, because the terminal is to be given back first; Ctrl-C stays a signal.
        mode[6][termios.VSUSP] = b"\0"
        # NOW, here and below: a terminal that was stopped (Ctrl-S) or hung up must not hold us.
        termios.tcsetattr(self._stdin, termios.TCSANOW, mode)
        live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._live = live
        live.start()

    def _leave(self) -> None:
        live, self._live = self._live, None
        try:
            if live is not None:
                with contextlib.suppress(OSError, ValueError):
                    live.stop()
                if self._console.is_alt_screen:
                    stream = raw(sys.stdout)
                    with contextlib.suppress(OSError, ValueError):
                        stream.write(_LEAVE)
                        stream.flush()
        finally:
            before, self._before = self._before, None
            if before is not None:
                with contextlib.suppress(termios.error):
                    # Keys that were typed for us are not for the user's shell.
                    termios.tcflush(self._stdin, termios.TCIFLUSH)
                    termios.tcsetattr(self._stdin, termios.TCSANOW, before)

    def suspend(self) -> None:
        """Give the terminal back, stop as by Ctrl-Z, and take it again when the shell has us go on."""
        self._leave()
        # All of the job, as the terminal would have it.
        os.kill(0, signal.SIGTSTP)
        self._enter()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines now."""
        width, height = self._console.size
        return max(width, _LEAST[0]), max(height, _LEAST[1])

    def show(self, draw: Callable[[int, int], Sequence[Text]]) -> None:
        """Draw what `draw` makes of columns and lines."""
        assert self._live is not None
        lines = draw(*self.size)
        self._live.update(Text("\n", no_wrap=True, overflow="crop").join(lines), refresh=True)

    def wake(self) -> None:
        """Have `wait` return, from whichever thread."""
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"\0")

    def _resized(self, number: int, frame: FrameType | None) -> None:
        self.wake()

    def wait(self, seconds: float) -> list[str]:
        """Wait for keys, `wake`, another size of the terminal, or so many seconds. Returns the keys; "q" where the
        terminal hung up.
        """
        poll = select.poll()
        poll.register(self._stdin, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        ready = dict(poll.poll(max(seconds, 0) * 1000))
        if self._wake_read in ready:
            with contextlib.suppress(OSError):
                os.read(self._wake_read, _READ)
        if self._stdin not in ready:
            return []
        try:
            data = os.read(self._stdin, _READ)
        except OSError:
            data = b""
        return self._keys.feed(data) if data else ["q"]
