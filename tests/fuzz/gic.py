"""The simulated GIC, for hostile frames: what is none of its business it lets pass."""

from __future__ import annotations

from collections import defaultdict

from tests.backend.simulated_gic import GICD, GICR_SGI, STRIDE, Line, SimulatedGic


class ForgivingGic(SimulatedGic):
    """Interrupts that do not exist can be ended, and other devices written to."""

    def __init__(self, nr_cpus: int) -> None:
        super().__init__(nr_cpus)
        self._end = GICR_SGI + nr_cpus * STRIDE
        self.lines = defaultdict(lambda: Line(0, False), self.lines)

    def _access(self, address: int, value: int, size: int, write: bool) -> int:
        return super()._access(address, value, size, write) if GICD <= address < self._end else value
