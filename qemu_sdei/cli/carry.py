"""A command's three streams on the user's: what `run -- COMMAND` and `exec` do with a session."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from qemu_sdei.cli.own_terminal import OwnTerminal, terminal_size
from qemu_sdei.cli.streams import OutputError, output_lost

if TYPE_CHECKING:
    from qemu_sdei.guest.exec_frames import Stream
    from qemu_sdei.guest.exec_session import ExecSession

ESCAPE: Final = b"\x1d"
_READ: Final = 1 << 14
_STEP: Final = 0.25
_WAIT: Final = 1.0
LEFT: Final = 130


def wants_terminal(forced: bool | None) -> bool:
    """Whether the command is to get a terminal of its own: where all three streams of ours are one, unless the user has
    said it.
    """
    return all(map(_is_terminal, (0, 1, 2))) if forced is None else forced


def _is_terminal(fd: int) -> bool:
    with contextlib.suppress(OSError):
        return os.isatty(fd)
    return False


def output(stream: Stream, data: bytes) -> None:
    """Write the command's output where it belongs. Raises `OutputError`, `BrokenPipeError`."""
    from qemu_sdei.guest.exec_frames import Stream

    fd = 2 if stream is Stream.ERRORS else 1
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:  # somebody has it not block: a program that shares the terminal
            select.select((), (fd,), (), _WAIT)
        except BrokenPipeError:
            raise
        except OSError as error:
            if fd == 1 and (lost := output_lost(error)) is not None:
                raise lost from None
            if fd == 2:
                raise OutputError(f"standard error cannot be written: {error.strerror}") from None
            raise BrokenPipeError from None


def carry(session: ExecSession, check: Callable[[], None], *, terminal: bool) -> int:
    """Have the session's command run on the user's streams until it ends; return its exit status.

    Args:
        check: is called again and again, and raises what ends the wait.
        terminal: the command has a terminal of its own, and gets each key. Ctrl-] leaves it then.
    """
    sys.stdout.flush()
    ended = False
    with OwnTerminal(0) as own:
        while session.status is None:
            # A job in the background has no keyboard. Without a terminal for the command ours stays as it is.
            mine = not own.there or (own.look() if terminal and session.started else own.ours)
            if terminal and own.raw:
                session.resize(*terminal_size())
            if session.step(_STEP, 0 if mine and not ended else None):
                try:
                    data = os.read(0, min(_READ, session.room))
                except OSError:
                    data = b""
                if terminal and own.raw and ESCAPE in data:
                    return LEFT
                ended = not data
                session.feed(data)
            check()
        return session.status
