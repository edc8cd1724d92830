"""Reads along with a ring without waiting: what is new, whenever somebody asks."""

from __future__ import annotations

from pathlib import Path

from qemu_sdei.trace.align import Aligner
from qemu_sdei.trace.decode import Decoder, Record
from qemu_sdei.trace.reading import Numbering, numbered
from qemu_sdei.trace.ring_reader import RingReader


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
        self._aligner = Aligner(self.meta.counter_hz)
        # What was written over before somebody looked is nobody's loss.
        oldest = max(self._ring.newest - self._ring.slots + 1, 0)
        self._ring.skip_to(oldest + 1)
        self._numbering = Numbering(oldest)

    def poll(self) -> list[Record]:
        """What is new, in its order and placed on the host's clock; with a record `dropped` where the writer was
        faster. [] if nothing is.
        """
        # No more than the ring has room for: a writer that is faster than this would have it go on for ever.
        for slot in self._ring.take(self._ring.slots):
            for record in numbered(self._decoder, self._numbering, slot):
                self._aligner.add(record)
        return [self._aligner.take() for _ in range(len(self._aligner))]

    def close(self) -> None:
        """Let go of the ring."""
        self._ring.close()
