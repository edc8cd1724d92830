"""The one way by which text goes to the user: whatever is printed, by us or by argparse, Python or a library, passes
`Screen`, which lets no character through that a terminal obeys.

What is meant for the terminal as it is goes around it, by `raw`: our own colours, and the guest's console.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO, cast

from qemu_sdei.printable import printable_lines


class Screen:
    """A text stream in front of another one."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write `text`; control characters but line ends and tabs as their numbers."""
        self.stream.write(printable_lines(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def raw(stream: TextIO) -> TextIO:
    """`stream` without a `Screen` in front of it."""
    return stream.stream if isinstance(stream, Screen) else stream


@contextmanager
def screened() -> Iterator[None]:
    """Put screens in front of standard output and error. After an exception they stay: Python prints it there, and
    without colours, which would be shown as their numbers.
    """
    before, hook = (sys.stdout, sys.stderr), sys.excepthook
    sys.stdout, sys.stderr = (cast("TextIO", Screen(raw(stream))) for stream in before)
    if hook is sys.__excepthook__:
        sys.excepthook = _print_plainly
    yield
    (sys.stdout, sys.stderr), sys.excepthook = before, hook


def _print_plainly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    import traceback

    traceback.print_exception(kind, error, trace)


@contextmanager
def unscreened() -> Iterator[None]:
    """For code of the user's own, which prints what it likes."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = raw(before[0]), raw(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
