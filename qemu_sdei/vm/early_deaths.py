"""When a backend that dies is not started again: it dies each time before it has served anything.

One that has answered a frame of the guest since its start has served, whether or not it was asked for its control
socket by then: on a host that is busy one can be killed (by the kernel for want of memory, say) long before that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from qemu_sdei.monitor import layout

LIMIT: Final = 5
"""Deaths in a row without service, after which there is no other start."""
WITHIN: Final = 300.0
"""Seconds in which they must fall: what lies longer ago was another fault."""
_DELAYS: Final = (0.0, 0.0, 0.2, 0.5, 1.0)
"""Seconds to wait before the next start, by the number of such deaths: what kills them may pass."""


class EarlyDeaths:
    """The deaths of one guest's backends."""

    def __init__(self, ram_fd: int, nr_cpus: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`ram_fd`: the guest's RAM, of which only the answers in the frame window are read."""
        self._ram_fd, self._nr_cpus, self._clock = ram_fd, nr_cpus, clock
        self._at_start = b""
        self._deaths: list[float] = []

    def started(self) -> None:
        """A backend is about to start."""
        self._at_start = self._answers()

    def died(self, *, answered: bool) -> None:
        """It has ended. `answered`: its control socket did."""
        now = self._clock()
        if answered or self._answers() != self._at_start:
            self._deaths.clear()
        else:
            self._deaths = [then for then in self._deaths if now - then < WITHIN] + [now]

    @property
    def count(self) -> int:
        """Deaths in a row without service."""
        return len(self._deaths)

    @property
    def over(self) -> bool:
        """No other is to be started."""
        return self.count >= LIMIT

    @property
    def delay(self) -> float:
        """Seconds to wait before the next start."""
        return _DELAYS[min(self.count, len(_DELAYS) - 1)]

    def _answers(self) -> bytes:
        """The ACK words of all vCPUs. One writer has each, the backend; a guest that forges them gets more starts."""
        base = layout.window_base(0, os.fstat(self._ram_fd).st_size)
        ack = base + 8 * layout.Word.ACK
        return b"".join(os.pread(self._ram_fd, 8, ack + layout.frame_offset(cpu)) for cpu in range(self._nr_cpus))
