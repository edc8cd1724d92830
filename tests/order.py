"""In which order tests are run where several processes share them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, islice
from typing import TypeVar

T = TypeVar("T")


def shared(tests: Sequence[T], processes: int, *, is_long: Callable[[T], bool], file: Callable[[T], object]) -> list[T]:
    """The order for so many processes. Each is given as many tests as the others, one behind the other in this order;
    who is done takes half of what another one has left, from its end (xdist's `worksteal`).

    So each share begins with its part of the long ones and ends with short ones: what is left in the end is shared
    finely, and nobody waits for the other's last long test. Tests of a file stay together, as they share guests.
    """
    long = [test for test in tests if is_long(test)]
    short = iter([test for test in tests if not is_long(test)])
    parts: list[list[T]] = [[] for _ in range(processes)]
    begun = 0
    for _, group in groupby(long, file):
        found = list(group)
        parts[begun * processes // len(long)] += found
        begun += len(found)
    size = len(tests) // processes
    order: list[T] = []
    for part in parts:
        order += [*part, *islice(short, max(0, size - len(part)))]
    return [*order, *short]
