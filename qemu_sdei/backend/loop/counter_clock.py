"""How the guest's counter lies on the host's real time.

QEMU's counter runs at the pace of CLOCK_MONOTONIC, and stands while the guest is stopped. So the difference of the two
is constant from one stop to the next. A call tells it, too large by the time that the call took to come here: the least
difference that was seen is the best.

Nobody tells the backend when QEMU stops the guest. So what was seen counts for two spans of time at most, and where a
difference is larger by far, the guest has stood still: then all begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SPAN_NS: Final = 1_000_000_000
"""What was seen counts in the span in which it was, and in the next."""
JUMP_NS: Final = 20_000_000
"""A call that took longer than this to come is less likely than a stop of the guest."""
_SECOND: Final = 1_000_000_000


class CounterClock:
    """That of one guest."""

    def __init__(
        self, monotonic: Callable[[], int] = time.monotonic_ns, real: Callable[[], int] = time.time_ns
    ) -> None:
        """`monotonic`, `real`: the host's clocks, in nanoseconds."""
        self._monotonic = monotonic
        self._real = real
        self._began = 0
        self._best: int | None = None
        """The least difference of this span."""
        self._before: int | None = None
        """That of the span before."""

    def forget(self) -> None:
        """The guest stood still, or another one is served."""
        self._best = self._before = None

    def wall(self, counter: int, hz: int) -> int:
        """The host's real time, in nanoseconds since 1970, at the moment when the counter stood at `counter`.

        Args:
            counter: of a call that is being answered.
            hz: the counter's frequency.
        """
        first = self._monotonic()
        real = self._real()
        now = (first + self._monotonic()) // 2
        at = counter * _SECOND // hz
        self._learn(now - at, now)
        known = [each for each in (self._best, self._before) if each is not None]
        return at + min(known) + real - now

    def _learn(self, difference: int, now: int) -> None:
        known = [each for each in (self._best, self._before) if each is not None]
        if known and difference - min(known) > JUMP_NS:
            self.forget()
        spans = (now - self._began) // SPAN_NS
        if spans:
            self._before = self._best if spans == 1 else None
            self._best, self._began = None, now
        self._best = difference if self._best is None else min(self._best, difference)
