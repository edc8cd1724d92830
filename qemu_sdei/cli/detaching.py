"""A command that continues in the background: a process in its own session, without the user's terminal."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

from qemu_sdei.cli.signals import ENDING

_LONGEST: Final = 256


class Ready:
    """In the process that goes on: says that it is as far as whoever started it waits for."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def __call__(self, word: str) -> None:
        """Say `word` (a guest's name), and let go of standard input, output and error."""
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        with contextlib.suppress(OSError):  # nobody waits any more
            os.write(self._pipe, word.encode()[:_LONGEST])
        os.close(self._pipe)


class Started:
    """In the process that began: what became of the one that goes on."""

    def __init__(self, word: str, status: int) -> None:
        self.word = word
        """What it said; "": it ended before."""
        self.status = status
        """Its exit status then, else 0."""


def in_background() -> Ready | Started:
    """Go on in the background: this returns twice, and there must be no other thread.

    The new process gets `Ready`. Until it calls that, errors are its own to print, and its end is that of the command.
    The old one waits for either, and gets `Started`; a signal that ends it meanwhile ends the new one.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.setsid()
        return Ready(write)
    os.close(write)
    try:
        word = os.read(read, _LONGEST)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)  # its cleaning up has limits of its own
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(read)
    if word:
        return Started(word.decode(errors="replace"), 0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Started("", code if code >= 0 else 128 - code)
