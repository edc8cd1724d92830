"""Signals that end a command become an exception, so that everything is taken down in the ordinary way."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN: Final = 0.01
"""Seconds."""

Hook = Callable[["sys.UnraisableHookArgs"], object]


class Terminated(BaseException):
    """A signal asked this process to end. No `Exception`: nothing but the end of the command may catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _on_signal(number: int, frame: FrameType | None) -> None:
    # Once is enough: a second one must not break off the cleaning up, whose every step has a limit.
    for other in ENDING:
        signal.signal(other, signal.SIG_IGN)
    raise Terminated(number)


def _once_more(hook: Hook, dropped: sys.UnraisableHookArgs) -> None:
    """Raise a `Terminated` again, a moment later: Python has dropped it, because the signal came while Python ran a
    callback of its own (it releases the lock of an import in one).
    """
    error = dropped.exc_value
    if not isinstance(error, Terminated):
        hook(dropped)
        return
    ending = error.number

    def again(number: int, frame: FrameType | None) -> None:
        raise Terminated(ending)

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)


@contextmanager
def catching_signals() -> Iterator[None]:
    """Have SIGINT, SIGTERM and SIGHUP raise `Terminated` in the main thread; those that are ignored (nohup) stay so."""
    before = {number: signal.getsignal(number) for number in ENDING}
    hook = sys.unraisablehook
    try:
        sys.unraisablehook = partial(_once_more, hook)
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, _on_signal)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
