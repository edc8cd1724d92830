"""Latencies of a guest's events, from its ring, while somebody injects them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from qemu_sdei.trace.event_lives import EventLife, LifeBook
from qemu_sdei.trace.latency import Distributions
from qemu_sdei.trace.reading import records_of
from qemu_sdei.trace.ring_reader import RingReader, Slots

_AT_ONCE: Final = 16_384
"""Slots that are looked at together: the more there are, the more is known of the clocks."""
_HISTORY: Final = 2048
"""Slots from before, for the same reason."""
_LAST_WORD: Final = 0.2
"""Seconds for the record of a completion that its client knows of already."""
_LOOK: Final = 0.005


class RingLatencies:
    """Reads along with a guest's ring, from now on.

    Attributes:
        found: the latencies of lives that have ended, once `finish` was called.
        missed: how many records could not be read in time.
    """

    def __init__(
        self, path: Path, wanted: Callable[[EventLife], bool], clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Have events that are triggered from now on, in the ring at `path`. `wanted`: which of them count.
        `clock`: the host's, by which the ring is written.

        Raises:
            UsageError, ProtocolError: there is no ring that can be read.
        """
        self.found = Distributions()
        self.missed = 0
        self._wanted = wanted
        self._ring = RingReader(path)
        self._ring.skip_to(max(self._ring.newest - min(_HISTORY, self._ring.slots // 2), 0) + 1)
        self._since = clock()
        self._book = LifeBook(self._ring.meta)
        self._slots: Slots = []

    def read(self) -> None:
        """Keep what is new in the ring. To be called often enough: the ring has room for some 1000 events."""
        new = self._ring.take()
        if self._ring.missed:
            self._digest(len(self._slots))
            self.missed += self._ring.missed
            self._note({"type": "dropped", "count": self._ring.missed})
        self._slots += new
        # It takes time, which the guest would feel: so seldom, and the rest stays for the next lot.
        if len(self._slots) >= 2 * _AT_ONCE:
            self._digest(_AT_ONCE)

    def _digest(self, count: int) -> None:
        """Make of the oldest slots what they mean. Each lot has an alignment of its own."""
        slots, self._slots = self._slots[:count], self._slots[count:]
        if slots:
            for record in records_of(self._ring.meta, slots, before=(slots[0][0] >> 20) - 1):
                self._note(record)

    def _note(self, record: Mapping[str, Any]) -> None:
        for life in self._book.feed(record):
            if life.triggered is not None and life.triggered.host_ns >= self._since and self._wanted(life):
                self.found.add(life)

    def finish(self, completed: int) -> None:
        """Read to the end: until `completed` lives are known to be, or for a moment."""
        end = time.monotonic() + _LAST_WORD
        while True:
            self.read()
            self._digest(len(self._slots))
            if self.found.outcomes["completed"] >= completed or time.monotonic() >= end:
                break
            time.sleep(_LOOK)

    def close(self) -> None:
        """Let go of the ring."""
        self._ring.close()
