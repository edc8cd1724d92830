"""Which CPUs were started and have not called since: the first thing to know of a guest that is silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qemu_sdei.errors import ProtocolError
from qemu_sdei.services.psci import Power

_WORD: Final = (1 << 64) - 1


class Starts:
    """Where each CPU was last sent, and how many calls it had made then.

    A backend that takes a guest over after a crash does not know: the calls that came after the last checkpoint are not
    counted again.
    """

    def __init__(
        self, started: dict[int, int], power: list[Power], calls: dict[int, list[int]], collect: Callable[[], None]
    ) -> None:
        """`started`: see `PowerStates`, drained here. `power`: of each CPU. `calls`: function -> how often each PE
        called it. Their owners keep them up to date. `collect` brings `calls` up to date.
        """
        self._collect = collect
        self._started = started
        self._power = power
        self._calls = calls
        self._starts: dict[int, tuple[int, int]] = {}

    def note(self) -> None:
        """Take what the firmware has started since the last time."""
        self._collect()
        for pe, entry in self._started.items():
            self._starts[pe] = entry, self._made(pe)
        self._started.clear()

    def silent(self, pe: int) -> int | None:
        """The entry point of a CPU that is on and has made no call since it started there; None: it has, is off, or it
        is not known.
        """
        start = self._starts.get(pe)
        on = self._power[pe] is Power.ON
        return start[0] if on and start is not None and start[1] == self._made(pe) else None

    def _made(self, pe: int) -> int:
        return sum(counts[pe] for counts in self._calls.values())

    def snapshot(self) -> list[list[int]]:
        """For the state document: `[PE, entry point]` of each CPU that is silent."""
        self._collect()
        found = [(pe, self.silent(pe)) for pe in sorted(self._starts)]
        return [[pe, entry] for pe, entry in found if entry is not None]

    def restore(self, silent: list[list[int]]) -> None:
        """Take what `check` has let pass, after the counts of calls."""
        self._started.clear()
        self._starts.clear()
        self._starts.update({pe: (entry, self._made(pe)) for pe, entry in silent})


def check(value: object, nr_cpus: int) -> list[list[int]]:
    """What `snapshot` gave, from outside.

    Raises:
        ProtocolError: it is damaged.
    """
    seen: set[int] = set()
    for entry in value if isinstance(value, list) else [None]:
        if not isinstance(entry, list) or [type(n) for n in entry] != [int, int]:
            raise ProtocolError("state document: counters: silent: must be pairs of CPU and entry point")
        pe, address = entry
        if not 0 <= pe < nr_cpus or pe in seen or not 0 <= address <= _WORD:
            raise ProtocolError("state document: counters: silent: of a CPU that is not there, or twice")
        seen.add(pe)
    assert isinstance(value, list)
    return value
