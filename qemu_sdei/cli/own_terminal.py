"""The terminal at standard input, as far as it is ours: raw while this process group has the foreground, and as it was
afterwards. A job in the background (`qemu-sdei run ... &`) leaves it alone, and has it when the shell says so (`fg`).
"""

from __future__ import annotations

import contextlib
import os
import termios
import tty
from typing import Any


def terminal_size() -> tuple[int, int]:
    """Rows and columns of the user's terminal; (0, 0): there is none."""
    for fd in (0, 1, 2):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(fd)
            return size.lines, size.columns
    return 0, 0


class OwnTerminal:
    """One descriptor; use it in a `with`, which gives the terminal back."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.there = os.isatty(fd)
        """It is a terminal at all."""
        self._before: list[Any] | None = None

    @property
    def ours(self) -> bool:
        """It is a terminal, and this process may read it and change it: it is in the foreground there."""
        if not self.there:
            return False
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            # Not our controlling terminal (setsid, a test): then there is no job control to obey. Or it is hung up.
            return True

    def look(self) -> bool:
        """Take the terminal where it is ours and not raw yet; let go of it where it is not ours any more. Returns
        whether it is ours.
        """
        if not self.ours:
            self._before = None  # the shell has its own settings there now
            return False
        if self._before is None:
            with contextlib.suppress(termios.error):
                self._before = termios.tcgetattr(self._fd)
                # NOW, here and below: a terminal that was stopped (Ctrl-S) or hung up must not hold us.
                tty.setraw(self._fd, termios.TCSANOW)
        return True

    @property
    def raw(self) -> bool:
        """It is in raw mode now: a line needs a carriage return."""
        return self._before is not None

    def restore(self) -> None:
        """As it was, where it is still ours; as often as one likes."""
        before, self._before = self._before, None
        if before is not None and self.ours:
            with contextlib.suppress(termios.error):
                # Late answers of the terminal to the guest's questions are not for the user's shell.
                termios.tcflush(self._fd, termios.TCIFLUSH)
                termios.tcsetattr(self._fd, termios.TCSANOW, before)

    def __enter__(self) -> OwnTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()
