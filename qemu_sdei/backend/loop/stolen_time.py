"""Writes how long the host kept each vCPU waiting into the record that the guest reads (DEN0057 3.2.2).

Looked at often while it grows, and seldom while it does not: a guest that is idle leaves its backend asleep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from qemu_sdei.monitor.window import Window
from qemu_sdei.services.pv_time import PvTime

FOREVER_MS: Final = 1 << 30
OFTEN_MS: Final = 50
SELDOM_MS: Final = 4000
_GROWS_NS: Final = 1_000_000
_SHARE: Final = 20
"""What is less than this, or than a twentieth of the time since the last look, is no reason to look often: on a busy
host each wake-up of an idle guest waits for a core, too.
"""
_MS: Final = 1_000_000
_SANE: Final = 1 << 63


class Threads(Protocol):
    """The vCPUs' threads."""

    def waited(self) -> dict[int, int]:
        """By vCPU, the nanoseconds for which its thread could have run and did not; {}: nothing is known."""


class StolenTime:
    """That of one guest.

    Attributes:
        threads: the threads of its vCPUs; None: nobody knows them.
    """

    def __init__(
        self, window: Window, service: PvTime | None, clock: Callable[[], int], paused: Callable[[], bool]
    ) -> None:
        """`service` None: the guest is not told. `clock`: nanoseconds. `paused`: the guest's RAM must be left alone."""
        self.threads: Threads | None = None
        self._window = window
        self._service = service
        self._clock = clock
        self._paused = paused
        self._asked: list[int] = []
        self._seen: dict[int, int] = {}
        """What a vCPU's thread had waited when it was looked at last."""
        self._pause_ms = OFTEN_MS
        self._due = self._looked = 0

    def tick(self) -> int:
        """Go on. Returns after how many milliseconds this is to be called again."""
        service, threads = self._service, self.threads
        if service is None or threads is None or self._paused():
            return FOREVER_MS
        asked = [pe for pe, total in enumerate(service.stolen) if total is not None]
        if not asked:
            return FOREVER_MS
        now = self._clock()
        if now < self._due and asked == self._asked:
            return (self._due - now) // _MS + 1
        self._asked = asked
        most = self._add(service, threads.waited(), asked)
        grows = most >= max(_GROWS_NS, (now - self._looked) // _SHARE)
        self._looked = now
        self._pause_ms = OFTEN_MS if grows else min(2 * self._pause_ms, SELDOM_MS)
        self._due = now + self._pause_ms * _MS
        return self._pause_ms

    def _add(self, service: PvTime, waited: dict[int, int], asked: list[int]) -> int:
        """Returns the most that was stolen from one of those who have asked."""
        most = 0
        for pe in asked:
            more = 0
            if pe in waited:
                # One that has just asked begins with nothing, and so does the thread of another QEMU.
                more = max(0, waited[pe] - self._seen.get(pe, waited[pe]))
                self._seen[pe] = waited[pe]
            most = max(most, more)
            self._write(pe, service.add(pe, more))
        return most

    def _write(self, pe: int, total: int | None) -> None:
        record = self._window.pv_time[pe]
        record[0] = 0  # revision and attributes, which a guest without stage 2 may have written over
        record[1] = total or 0  # one store of 64 bits

    def take_up(self) -> None:
        """Another backend wrote the records before: none must go back."""
        if self._service is not None:
            for pe, total in enumerate(self._service.stolen):
                shown = self._window.pv_time[pe][1]
                if total is not None and total < shown < _SANE:
                    self._service.add(pe, shown - total)

    def take_over(self) -> None:
        """The guest's state is another one by now: the records are those of the state."""
        self._seen.clear()
        self._asked = []
        if self._service is not None:
            for pe, total in enumerate(self._service.stolen):
                self._write(pe, total)

    def reset(self) -> None:
        """The machine was reset: nothing was stolen yet."""
        self._seen.clear()
        self._asked = []
        for pe in range(self._window.nr_cpus):
            self._write(pe, 0)
