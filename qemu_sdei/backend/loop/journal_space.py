"""Space in the journal: a checkpoint when it is full; there can be none while a service has micro-operations in flight.

Its CPU does them in microseconds, if the host runs that CPU. Meanwhile others may call so often that the journal
overflows, and the service's call would have to be cancelled for nothing that it did. So they are left waiting then.
"""

from __future__ import annotations

import time
from typing import Final, Protocol

from qemu_sdei.backend.loop.journal import OVERFLOW
from qemu_sdei.backend.loop.served_guest import ServedGuest

_LIMIT: Final = 1.0
"""Seconds for which a CPU is waited for: one that QEMU has stopped comes only when it is resumed."""
_PAUSE: Final = 50e-6


class Answering(Protocol):
    """What is asked of the loop while frames of some CPUs only are to be answered."""

    @property
    def paused(self) -> bool:
        """Whether no frame is answered."""

    def answer_as_wanted(self, pe: int, s: int) -> bool:
        """Answer frame `s` of a PE with all that is wanted of frames."""

    def checkpoint(self) -> None:
        """Replace the journal by the state as it is."""


class JournalSpace:
    """Sees to it that the journal of one guest has some."""

    def __init__(self, loop: Answering, guest: ServedGuest) -> None:
        self._loop = loop
        self._guest = guest
        self._waiting = False
        self._in_vain = False
        """It was waited for, and is not again before the next checkpoint."""

    def make(self) -> bool:
        """The journal is full: a checkpoint, as soon as there can be one. Returns whether it is still full."""
        exchange = self._guest.firmware.exchange
        if self._waiting:
            return True  # this is one of the frames that are waited for
        if exchange.busy and not self._in_vain:
            self._wait()
        if exchange.busy:
            if self._guest.journal.count < OVERFLOW:
                return True
            exchange.abandon()
        self._in_vain = False
        self._loop.checkpoint()
        return False

    def _wait(self) -> None:
        """Answer no CPU but those whose services have micro-operations in flight, until none has."""
        guest, loop, exchange = self._guest, self._loop, self._guest.firmware.exchange
        seq, limit = guest.window.seq, time.monotonic() + _LIMIT
        self._waiting = True
        try:
            while exchange.busy and guest.journal.count < OVERFLOW and not loop.paused:
                posted = [pe for pe in exchange.in_flight if seq[pe] != guest.seen[pe]]
                for pe in posted:
                    loop.answer_as_wanted(pe, seq[pe])
                if not posted:
                    if time.monotonic() > limit:
                        self._in_vain = True
                        return
                    time.sleep(_PAUSE)
        finally:
            self._waiting = False
