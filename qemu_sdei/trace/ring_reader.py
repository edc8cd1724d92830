"""Reads a guest's trace ring from another process, also while it is being written, and after its writer has died."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from qemu_sdei import bounded
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.trace.slots import (
    HEADER_BYTES,
    MAGIC,
    MAX_SLOTS,
    META_BYTES,
    SLOT_BYTES,
    SLOT_WORDS,
    SLOTS_OFFSET,
    VERSION,
    Header,
    file_size,
)

Slots = list[tuple[int, ...]]


class RingReader:
    """The records of one ring, as raw slots, from the oldest on.

    Attributes:
        meta: of which guest it is.
        missed: how many records the last `take` could not get, because the writer had written over them.
    """

    def __init__(self, path: Path) -> None:
        """Map the ring at `path`, to read.

        Raises:
            UsageError: it cannot be read. `ProtocolError`: it is no ring of this version.
        """
        self._path = path
        self._map = _mapped(path)
        words = memoryview(self._map).cast("Q")
        self._header = words[: HEADER_BYTES // 8]
        self.slots = int(self._header[Header.SLOTS])
        self._words = words[SLOTS_OFFSET // 8 :]
        self.meta = self._read_meta()
        self.missed = 0
        self._next = 1
        """Serial number of the record that is read next."""

    def _read_meta(self) -> TraceMeta:
        length = self._header[Header.META_LENGTH]
        if not 0 < length <= META_BYTES:
            raise ProtocolError(f"trace ring {self._path} says nothing of its guest: it is damaged, or just begun")
        try:
            return TraceMeta.of(bounded.loads(bytes(self._map[HEADER_BYTES : HEADER_BYTES + length])))
        except (ValueError, ProtocolError) as error:
            raise ProtocolError(f"trace ring {self._path}: {error}") from None

    @property
    def newest(self) -> int:
        """Serial number of the newest record that its writer has finished."""
        return int(self._header[Header.COUNT])

    @property
    def begun(self) -> int:
        """Serial number of the newest record, finished or not: its writer may be at it, or was killed over it."""
        newest = self.newest
        for _ in range(self.slots):
            if self._words[(newest & self.slots - 1) * SLOT_WORDS] >> 20 != newest + 1:
                break
            newest += 1
        return newest

    def skip_to(self, serial: int) -> None:
        """Read on from record `serial`."""
        self._next = max(serial, 1)

    def take(self, limit: int = MAX_SLOTS, *, unfinished: bool = False) -> Slots:
        """At most `limit` records from where the last call ended; [] if there are none yet.

        What the writer has written over is missing: `missed` says how many. `unfinished`: also what the writer is at,
        such as a frame without an answer.
        """
        newest = self.begun if unfinished else self.newest
        if newest < self._next - 1:
            self._next = 1  # the ring was begun anew
        first = max(self._next, newest - self.slots + 1, 1)
        end = min(newest + 1, first + limit)
        found: Slots = []
        mask, words = self.slots - 1, self._words
        for serial in range(first, end):
            start = (serial - 1 & mask) * SLOT_WORDS
            slot = tuple(words[start : start + SLOT_WORDS])
            # Where something else stands, before or after the copy, the writer has come round.
            if slot[0] >> 20 == serial == words[start] >> 20:
                found.append(slot)
        # The one slot that a writer is at now has its old number still, and words of both records; so had, when they
        # were copied, those that it has been at meanwhile.
        edge = self.begun + 1 - self.slots
        found = [slot for slot in found if slot[0] >> 20 > edge]
        self.missed = first - self._next + max(end - first, 0) - len(found)
        self._next = max(end, first)
        return found

    def close(self) -> None:
        """Unmap it."""
        self._words.release()
        self._header.release()
        self._map.close()


def _mapped(path: Path) -> mmap.mmap:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"trace ring {path} cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size < SLOTS_OFFSET + SLOT_BYTES:
            raise ProtocolError(f"{path} is not a trace ring")
        head = memoryview(os.pread(fd, 8 * len(Header), 0)).cast("Q")
        slots = head[Header.SLOTS]
        if head[Header.MAGIC] != MAGIC:
            raise ProtocolError(f"{path} is not a trace ring")
        if head[Header.VERSION] != VERSION:
            raise ProtocolError(f"{path} is a trace ring of version {head[Header.VERSION]}, not {VERSION}")
        if not 0 < slots <= MAX_SLOTS or slots & slots - 1 or status.st_size != file_size(slots):
            raise ProtocolError(f"trace ring {path} is damaged: {slots} slots in {status.st_size} bytes")
        return mmap.mmap(fd, status.st_size, mmap.MAP_SHARED, mmap.PROT_READ)
    finally:
        os.close(fd)
