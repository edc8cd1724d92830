"""Signals that end a command become an exception, so that everything is taken down in the ordinary way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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


@contextmanager
def catching_signals() -> Iterator[None]:
    """Have SIGINT, SIGTERM and SIGHUP raise `Terminated` in the main thread; those that are ignored (nohup) stay so."""
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, _on_signal)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
