"""How long a process may be silent before a wait for its answer ends.

The limit is of silence, not of time: on a host that is busy an answer takes long, but the process gets on. What counts
as silence is time in which it used no CPU time and did not wait for a CPU or a disk either. Time in which *we* did not
run (stopped, or starved) does not count against it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from qemu_sdei import stopped

STOPPED: Final = 5.0
"""Seconds for which a process may be stopped."""
FACTOR: Final = 10
"""A process that gets on and does not answer has this many times the limit."""
STEP: Final = 0.5
"""Seconds between two looks; one that comes later counts as twice this at most."""

T = TypeVar("T")


class SilentError(Exception):
    """The wait is over; the message is the end of a sentence about the process."""


class Silence:
    """One wait for one process."""

    def __init__(self, limit: float) -> None:
        """`limit`: seconds of silence."""
        self._limit = limit
        self._quiet = self._stopped = self._all = 0.0
        self._then = time.monotonic()
        self._before: stopped.Look | None = None

    def check(self, pid: int | None) -> None:
        """Look at the process. Raises `SilentError`: it was silent for too long."""
        now = time.monotonic()
        step, self._then = min(now - self._then, 2 * STEP), now
        found = None if pid is None else stopped.look(pid)
        before, self._before = self._before, found
        gets_on = found is not None and (found.state in "RD" or (before is not None and before.cpu != found.cpu))
        # One under strace is stopped at each look perhaps, and gets on.
        self._stopped = self._stopped + step if found is not None and found.stopped and not gets_on else 0.0
        self._quiet = 0.0 if gets_on else self._quiet + step
        self._all += step
        if self._stopped >= min(STOPPED, self._limit):
            assert pid is not None
            raise SilentError(f"process {pid} {stopped.remedy(pid)}")
        if self._quiet >= self._limit:
            raise SilentError(f"no answer and no progress for {self._limit:g} s")
        if self._all >= FACTOR * self._limit:
            raise SilentError(f"no answer within {FACTOR * self._limit:g} s, though it runs")


def longest(limit: float) -> float:
    """Seconds after which a wait with this limit of silence ends at the latest."""
    return FACTOR * limit + 2 * STEP


async def answer(work: Awaitable[T], pid: Callable[[], int | None], limit: float) -> T:
    """The result of `work`, an answer of the process that `pid` tells. Raises `SilentError`, and what `work` raises."""
    task = asyncio.ensure_future(work)
    silence = Silence(limit)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=STEP)
            if not task.done():
                silence.check(pid())
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # also takes note of an error that nobody waits for now
