"""How the guest's counter lies on the host's real time.

QEMU's counter runs at the pace of CLOCK_MONOTONIC, and stands while the guest is stopped. So the difference of the two
is constant from one stop to the next. A call tells it, too large by the time that the call took to come here: the least
difference that was seen is the best.

Nobody tells the backend when QEMU stops the guest. Where a difference is larger by far, or each of several is larger,
the guest has stood still: then all begins anew.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

JUMP_NS: Final = 20_000_000
"""A call that took longer than this to come is less likely than a stop of the guest."""
LATE_NS: Final = 1_000_000
FEW: Final = 8
"""So many calls, one after the other, that each took longer than LATE_NS are less likely, too."""
_SECOND: Final = 1_000_000_000


class CounterClock:
    """That of one guest."""

    def __init__(
        self, monotonic: Callable[[], int] = time.monotonic_ns, real: Callable[[], int] = time.time_ns
    ) -> None:
        """`monotonic`, `real`: the host's clocks, in nanoseconds."""
        self._monotonic = monotonic
        self._real = real
        self._best: int | None = None
        """The least difference."""
        self._newest: deque[int] = deque(maxlen=FEW)

    def forget(self) -> None:
        """The guest stood still, or another one is served."""
        self._best = None
        self._newest.clear()

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
        return at + self._learn(now - at) + real - now

    def _learn(self, difference: int) -> int:
        """Take a difference in. Returns the best one."""
        best = self._best
        if best is not None and difference - best > JUMP_NS:
            self.forget()
            best = None
        self._newest.append(difference)
        best = difference if best is None else min(best, difference)
        if len(self._newest) == FEW and (least := min(self._newest)) - best > LATE_NS:
            best = least
        self._best = best
        return best
