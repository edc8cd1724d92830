"""How soon a test has its guest: the fixture `guest` from a saved state, beside a boot, in turns.

    python -m scripts.benchlib.fixtures [--rounds N] [--series S]

Both end when a command has run in the guest's shell. CPU time is that of all processes, from the start of the guest to
its end: on a host that is busy it is what can be compared.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from qemu_sdei.pytest_plugin.starting import Starter
from qemu_sdei.vm.options import GuestOptions

_KINDS = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


@dataclass(frozen=True)
class Took:
    """Seconds of one start: until the shell answers, of CPU time until the guest has ended, and to end it."""

    wall: float
    cpu: float
    end: float


def measure(
    series: str, rounds: int, say: Callable[[str], None], add: Callable[[str, str, float, float, str], None]
) -> None:
    """Add the rows of a table: from a saved state, a boot, both medians."""
    options = GuestOptions(series=series, helper=True)
    saved, boot = Starter(fresh=False), Starter(fresh=True)
    say("a guest for the cache")
    saved.start(options).close()
    found: tuple[list[Took], list[Took]] = [], []
    for n in range(rounds):
        say(f"fixtures, round {n + 1} of {rounds}")
        for starter, into in zip((saved, boot), found, strict=True):
            into.append(_once(starter, options))
    for what, pick, aim in (
        (f"{series}: a guest for a test (a boot)", lambda took: took.wall, "<= 0.20x, < 1 s"),
        ("... its end", lambda took: took.end, ""),
        ("... CPU time of all its processes", lambda took: took.cpu, ""),
    ):
        here, there = (statistics.median(map(pick, side)) for side in found)
        add(what, "s", here, there, aim)


def _once(starter: Starter, options: GuestOptions) -> Took:
    cpu, began = _cpu(), time.monotonic()
    guest = starter.start(options)
    try:
        guest.run("true")
        there = time.monotonic()
    finally:
        guest.close()
    ended = time.monotonic()
    return Took(there - began, _cpu() - cpu, ended - there)


def _cpu() -> float:
    used = [resource.getrusage(kind) for kind in _KINDS]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--series", default="6.12")
    args = parser.parse_args()

    def add(what: str, unit: str, saved: float, boot: float, aim: str) -> None:
        print(f"{what:46}{saved:>10.3f}{boot:>11.3f}{saved / boot:>8.2f}  {aim} [{unit}]")

    measure(args.series, args.rounds, lambda text: None, add)


if __name__ == "__main__":
    main()
