"""Standard output and error as a command needs them: a disk that is full is an error of one line, and no character is
more than the terminal's or file's encoding can take.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, Final

from qemu_sdei.errors import SdeiError

_NAMES: Final = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


class OutputError(SdeiError):
    """Standard output cannot be written: what it says would be lost."""


class _Output(io.FileIO):
    """Descriptor 1. A closed pipe stays `BrokenPipeError`: whoever read it has seen enough."""

    def write(self, data: Any) -> int:
        """Write; raises `OutputError`."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output cannot be written: {error.strerror}") from None


class _Messages(io.FileIO):
    """Descriptor 2. There is nobody left to tell that it cannot be written."""

    def write(self, data: Any) -> int:
        """Write, or do as if."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def open_standard_files() -> None:
    """Have standard input, output and error be usable, whatever the process was started with.

    A closed one is /dev/null, so that no file of ours gets its number.
    """
    for fd, name, mode in _NAMES:
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115 - as long as the process
    sys.stdout = _checked(sys.stdout, 1, _Output)
    sys.stderr = _checked(sys.stderr, 2, _Messages)


def _checked(stream: Any, fd: int, kind: type[io.FileIO]) -> Any:
    """`stream`, if it is just the process's own, with `kind` below it. What the encoding has no character for is shown
    by its number.
    """
    try:
        own = isinstance(stream, io.TextIOWrapper) and stream.fileno() == fd
    except (OSError, ValueError):
        return stream
    if not own or isinstance(getattr(stream.buffer, "raw", None), (_Output, _Messages)):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(kind(fd, "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or fd == 2,
        write_through=stream.write_through,
    )


def abandon_output() -> None:
    """Nothing more can be written to standard output: what is still buffered must not fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def output_lost(error: OSError) -> OutputError | None:
    """For whoever writes to descriptor 1 by itself: the error to raise. None: the terminal was closed."""
    if error.errno == errno.EIO and os.isatty(1):
        return None
    return OutputError(f"standard output cannot be written: {error.strerror}")
