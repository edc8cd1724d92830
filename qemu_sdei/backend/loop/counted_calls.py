"""Calls that always answer the same are counted, not recorded one by one: a record costs as much as their answer. And
those that the monitor answers can only be counted.
"""

from __future__ import annotations

from qemu_sdei.backend.loop.ready_answers import ReadyAnswers
from qemu_sdei.trace.ring import Ring
from qemu_sdei.trace.slots import Type


class CountedCalls:
    """Tells the ring of them, now and then: how many came from each vCPU since the last time."""

    def __init__(self, ring: Ring, ready: ReadyAnswers) -> None:
        self._ring = ring
        self._ready = ready
        self._watched: list[tuple[int, list[int], list[int]]] = []
        self._since = ring.clock()

    def watch(self, function: int, counts: list[int]) -> None:
        """Tell of a function, whose calls are counted in `counts` from now on."""
        self._watched.append((function, counts, counts.copy()))

    def forget(self) -> None:
        """Tell of none."""
        self.tell()
        self._watched.clear()

    def tell(self) -> bool:
        """Keep a record for each function and vCPU that has called since the last time. Returns whether any has."""
        before = self._ring.serial
        ready = self._ready
        ready.collect()
        watched = {function for function, *_ in self._watched}
        for (vcpu, function), count in ready.take_untold().items():
            if function not in watched:
                self._ring.keep(Type.COUNTED, vcpu, function, count, self._since)
        for function, counts, told in self._watched:
            if counts == told:
                continue
            for vcpu, count in enumerate(counts):
                if count != told[vcpu]:
                    self._ring.keep(Type.COUNTED, vcpu, function, count - told[vcpu], self._since)
            told[:] = counts
        self._since = self._ring.clock()
        return self._ring.serial != before
