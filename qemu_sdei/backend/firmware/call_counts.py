"""How often each function was called: counts of so many functions that a guest cannot make them any number it likes.

A user's service may answer 65536 functions, each in two widths; the counts are in each checkpoint, state document and
answer to `status`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from qemu_sdei.services.function_names import OTHER

MAX_FUNCTIONS: Final = 256
"""Functions that are counted one by one: those that were called first. All others count as OTHER."""


def counter(calls: dict[int, list[int]], function: int, nr_cpus: int) -> list[int]:
    """The counts of a function, one for each CPU, in `calls`; made where there are none yet."""
    found = calls.get(function)
    if found is None:
        if len(calls) >= MAX_FUNCTIONS and function >= 0:
            function = OTHER
        found = calls.setdefault(function, [0] * nr_cpus)
    return found


def taken_up(calls: dict[int, list[int]], stored: Iterable[tuple[int, list[int]]], nr_cpus: int) -> None:
    """Have `calls` be what was `stored`, perhaps by a version that counted more functions."""
    calls.clear()
    for function, counts in stored:
        found = counter(calls, function, nr_cpus)
        found[:] = [a + b for a, b in zip(found, counts, strict=True)]
