"""Which of several divergences came first, where each is in another sequence of two traces."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

from qemu_sdei.trace.step_lists import Lane, Run

_NEVER: Final = 1 << 62
SILENCE_NS: Final = 1_000_000_000
"""A sequence that ends so long before its trace has stopped; a shorter time may be chance, as vCPUs race each other."""
_SLOWER: Final = 10
"""It may also be this much slower than the other one."""


class Place(NamedTuple):
    """Where a divergence is: serial numbers of the records that differ there, or _NEVER.

    `ends`: "a" or "b" if that side has nothing there because its whole trace ends; else "".
    """

    in_a: int
    in_b: int
    ends: str


class Order:
    """The order of steps in two traces, as A counts its records."""

    def __init__(self, a: Run, b: Run) -> None:
        self._both: list[tuple[int, int]] = []
        """(serial number in B, in A) of steps that both have."""
        self._a, self._b = (_end(run) for run in (a, b))
        self._sorted = True

    def both(self, in_a: int, in_b: int) -> None:
        """Both have a step, with these serial numbers."""
        self._both.append((in_b, in_a))
        self._sorted = False

    def place(self, a: Lane, b: Lane, in_a: list[int], in_b: list[int], ends_at: tuple[int, int]) -> Place:
        """Where steps of one sequence of A, and of the same of B, are: one may be none. `ends_at`: where they have
        ended in A and in B.
        """
        ends = ""
        if not in_b and ends_at[1] == len(b) and _races(a, in_a[0], b, self._b[1]):
            ends = "b"
        if not in_a and ends_at[0] == len(a) and _races(b, in_b[0], a, self._a[1]):
            ends = "a"
        return Place(a.numbers[in_a[0]] if in_a else _NEVER, b.numbers[in_b[0]] if in_b else _NEVER, ends)

    def key(self, place: Place) -> tuple[int, int, int]:
        """To sort by. What only B has comes behind what both have before it; what is missing because a trace ends, at
        that end.
        """
        if place.ends == "a":
            return self._a[0], place.in_b, 0
        if place.ends == "b":
            return self._mapped(self._b[0]), self._b[0] + 1, place.in_a
        return place.in_a if place.in_a != _NEVER else self._mapped(place.in_b), place.in_b, place.in_a

    def _mapped(self, in_b: int) -> int:
        if not self._sorted:
            self._both.sort()
            self._sorted = True
        at = bisect_right(self._both, (in_b, _NEVER))
        return self._both[at - 1][1] if at else 0


def _end(run: Run) -> tuple[int, int]:
    """Serial number and time of the last step of a trace."""
    lanes = [lane for lane in run.lanes.values() if lane]
    return max((lane.numbers[-1] for lane in lanes), default=0), max((lane.times[-1] for lane in lanes), default=0)


def _races(longer: Lane, at: int, shorter: Lane, end_ns: int) -> bool:
    """Whether a sequence that has ended, where the other one goes on with its step `at`, may just have been overtaken
    by the end of its trace.
    """
    if not shorter:
        return False
    silent = end_ns - shorter.times[-1]
    pause = longer.times[at] - longer.times[at - 1] if at else 0
    return silent < max(SILENCE_NS, _SLOWER * pause)
