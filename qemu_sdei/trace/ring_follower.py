"""Reads along with a ring without waiting: what is new, whenever somebody asks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qemu_sdei.trace.align import Alignment
from qemu_sdei.trace.decode import Decoder, Record
from qemu_sdei.trace.reading import Numbering, numbered
from qemu_sdei.trace.ring_reader import RingReader

_AT_ONCE: Final = 4096


class RingFollower:
    """The records of one ring, from the oldest that it has on.

    Attributes:
        meta: of which guest it is.
    """

    def __init__(self, path: Path) -> None:
        """Open the ring at `path`.

        Raises:
            UsageError: it cannot be read. `ProtocolError`: it is no ring of this version.
        """
        self._ring = RingReader(path)
        self.meta = self._ring.meta
        self._decoder = Decoder(self.meta.monitor)
        self._alignment = Alignment(self.meta.counter_hz)
        # What was written over before somebody looked is nobody's loss.
        oldest = max(self._ring.newest - self._ring.slots, 0)
        self._ring.skip_to(oldest + 1)
        self._numbering = Numbering(oldest)

    def poll(self) -> list[Record]:
        """What is new, in its order and placed on the host's clock; with a record `dropped` where the writer was
        faster. [] if nothing is.
        """
        found: list[Record] = []
        while slots := self._ring.take(_AT_ONCE):
            for slot in slots:
                found += map(self._placed, numbered(self._decoder, self._numbering, slot))
        return found

    def _placed(self, record: Record) -> Record:
        place = self._alignment.place(record, self._alignment.learn(record))
        at_ns, error_ns = (record["time_ns"], 0) if place is None else place
        record["at_ns"], record["at_error_ns"] = at_ns, error_ns
        return record

    def close(self) -> None:
        """Let go of the ring."""
        self._ring.close()
