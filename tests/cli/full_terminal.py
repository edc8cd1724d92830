"""A command that takes the whole terminal, at one of 80 by 24; that it gives it back is looked at at its end."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from collections.abc import Iterator, Sequence
from typing import Any

import pexpect

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
"""To the alternate screen, and back."""


class Terminal:
    """`top` at a terminal of 80 by 24."""

    def __init__(
        self, *words: str, program: str = sys.executable, options: Sequence[str] = ("-m", "qemu_sdei")
    ) -> None:
        self.screen = pexpect.spawn(
            program,
            [*options, *(words or ("top", "--interval", "0.1"))],
            env=dict(os.environ | {"TERM": "xterm-256color"}),
            encoding="utf-8",
            dimensions=(24, 80),
            timeout=30,
        )
        self.before = termios.tcgetattr(self.screen.child_fd)
        self.seen = ""

    def until(self, words: str) -> None:
        """Wait until `words` are shown."""
        self.screen.expect_exact(words)
        self.seen += str(self.screen.before) + words

    def end(self) -> int:
        """Wait for the end; the terminal must be as it was. Returns the exit status, 128 + N of a signal."""
        self.screen.expect(pexpect.EOF)
        self.seen += str(self.screen.before)
        assert self.seen.count(ENTER) == self.seen.count(LEAVE) == 1
        assert self.seen.rindex("\x1b[?25h") > self.seen.rindex("\x1b[?25l"), "the cursor is there again"
        assert termios.tcgetattr(self.screen.child_fd) == self.before
        self.screen.close()
        status = self.screen.exitstatus
        return 128 + int(self.screen.signalstatus or 0) if status is None else status


@contextlib.contextmanager
def terminal(*words: str, **how: Any) -> Iterator[Terminal]:
    found = Terminal(*words, **how)
    try:
        yield found
    finally:
        found.screen.close(force=True)
