"""The end of this process is the end of its guests, unless it is killed by SIGKILL.

`with Guest(...)` and `close` end a guest in the ordinary way. For the rest: a program that ends without `close`, and
SIGTERM and SIGHUP where nobody handles them, which would end Python at once. (SIGINT is an exception already, and the
`qemu-sdei` command handles all three.) Guests that the kernel kills with their owner need none of it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Final, Protocol

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


class _Closes(Protocol):
    def close(self) -> None: ...


_guests: list[_Closes] = []
_process = 0


def register(guest: _Closes) -> None:
    """Have `guest` closed when this process ends, until `forget`."""
    global _process
    if _process != os.getpid():
        # Also after a fork: the guests of the parent are not this process's to end.
        _guests.clear()
        _process = os.getpid()
        atexit.register(_close_all)
    _guests.append(guest)
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _on_signal)


def forget(guest: _Closes) -> None:
    """`guest` is closed."""
    if guest in _guests:
        _guests.remove(guest)
    if not _guests and threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, signal.SIG_DFL)


def _close_all() -> None:
    if _process == os.getpid():
        for guest in list(_guests):
            with contextlib.suppress(Exception):
                guest.close()


def _on_signal(number: int, frame: FrameType | None) -> None:
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)  # a second one must not break off what has limits of its own
    _close_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
