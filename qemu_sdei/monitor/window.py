"""The shared mapping: guest RAM and the frame window at its top. The one module that touches that memory's shape."""

from __future__ import annotations

import mmap
import os

from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import Header, Save


class Window:
    """Guest RAM, mapped, with views of the window's parts.

    All views are of format "Q" (host order, which is little-endian on every host that QEMU's TCG runs this on in
    practice; a big-endian host is refused).

    Attributes:
        ram: the whole RAM, format "B".
        seq: u64[nr_cpus], written by the monitor.
        kick: u64[nr_cpus], written here.
        frames: one view of 128 words for each CPU.
        contexts: PC, PSTATE, X0..X17 of each frame (20 words).
        pv_time: the record of stolen time of each CPU, two words: 0 (revision and attributes), and nanoseconds.
        ready: the table of ready answers of each CPU.
        kept: bytes for the state document of a snapshot, format "B".
        save: what the monitor is asked to save at each entry, from the next `announce` on.
    """

    def __init__(self, fd: int, ram_base: int, ram_size: int, nr_cpus: int) -> None:
        """Map `ram_size` bytes of `fd` (which stays the caller's).

        Raises:
            ProtocolError: the file is smaller than the RAM that it should hold.
        """
        size = os.fstat(fd).st_size
        if size < ram_size:
            raise ProtocolError(f"guest RAM file holds {size} bytes, not {ram_size}")
        self.ram_base = ram_base
        self.ram_size = ram_size
        self.nr_cpus = nr_cpus
        self.base = layout.window_base(ram_base, ram_size)
        self._map = mmap.mmap(fd, ram_size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.ram = memoryview(self._map)
        start = self.base - ram_base
        words = self.ram[start : start + layout.WINDOW_SIZE].cast("Q")
        self.header = words[: layout.SEQ_OFFSET // 8]
        self.seq = _sub(words, layout.SEQ_OFFSET, nr_cpus)
        self.kick = _sub(words, layout.KICK_OFFSET, nr_cpus)
        self.frames = [_sub(words, layout.frame_offset(cpu), layout.FRAME_WORDS) for cpu in range(nr_cpus)]
        self.contexts = [frame[layout.CONTEXT] for frame in self.frames]
        self.kept = self.ram[start + layout.KEPT_OFFSET : start + layout.KEPT_OFFSET + layout.KEPT_SIZE]
        self.pv_time = [_sub(words, layout.pv_time_offset(cpu), 2) for cpu in range(nr_cpus)]
        self.ready = [_sub(words, layout.ready_offset(cpu), layout.READY_SIZE // 8) for cpu in range(nr_cpus)]
        self.save = Save(0)
        self._words = words

    def announce(self, version: int = layout.VERSION) -> None:
        """Write the header. `version`: that of the guest's monitor, which looks at it after a reset."""
        self.header[Header.MAGIC] = layout.MAGIC
        self.header[Header.VERSION] = version
        self.header[Header.NR_CPUS] = self.nr_cpus
        self.header[Header.SAVE] = self.save

    def close(self) -> None:
        """Unmap. The views die with it."""
        parts = (*self.contexts, *self.frames, *self.pv_time, *self.ready)
        for view in (*parts, self.kick, self.seq, self.header, self._words, self.kept, self.ram):
            view.release()
        self._map.close()


def _sub(words: memoryview, offset: int, count: int) -> memoryview:
    return words[offset // 8 : offset // 8 + count]
