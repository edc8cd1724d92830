"""The trace ring's writer: what a backend does, always, at the cost of some hundred nanoseconds a record."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.monitor.layout import Word
from qemu_sdei.trace.slots import (
    DONE,
    HEADER_BYTES,
    IGNORED,
    MAGIC,
    MAX_TEXT,
    META_BYTES,
    NO_VCPU,
    SLOT_BYTES,
    SLOT_WORDS,
    SLOTS,
    SLOTS_OFFSET,
    TEXT_FIRST,
    TEXT_MORE,
    VERSION,
    At,
    Header,
    Type,
    file_size,
)

PLACE: Final = slice(At.DATA, At.DATA + 16)
"""Of a slot: where the frame goes, `POSTED` of it."""
OUTCOME: Final = slice(At.OUTCOME, At.OUTCOME + 4)
"""Of a slot: where its answer goes, `DONE` of it."""
_COUNT: Final = int(Header.COUNT)
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF


class Fold:
    """The transition that goes into the slot of the call that it comes of.

    Attributes:
        word: the transition, as in At.ANSWER; 0: a call is being answered, and none has come of it yet; -1: no call is.
    """

    __slots__ = ("word",)

    def __init__(self) -> None:
        self.word = -1


class Ring:
    """The newest records of one guest, in a file that survives this process.

    Attributes:
        clock: gives the host's monotonic time in nanoseconds.
        slots: how many records it keeps; `mask` is one less.
        serial: number of the newest record; 0: there is none.
        entries: the slots, words of each. `Server.frame` writes there itself, because a call costs as much as a record.
        fold: the transition of the call that is being answered.
    """

    def __init__(self, path: Path, clock: Callable[[], int], slots: int = SLOTS) -> None:
        """Go on with the ring at `path`, or make one of `slots` (a power of two).

        Raises:
            UsageError: the file cannot be made: no room, no permission.
        """
        self.clock = clock
        self.slots = slots
        self.mask = slots - 1
        self._map, fresh = _mapped(path, slots)
        self._bytes = memoryview(self._map)
        words = self._bytes.cast("Q")
        self._header = words[: HEADER_BYTES // 8]
        first = SLOTS_OFFSET // 8
        self.entries = [words[first + n * SLOT_WORDS : first + (n + 1) * SLOT_WORDS] for n in range(slots)]
        if fresh:
            self._header[Header.MAGIC] = MAGIC
            self._header[Header.VERSION] = VERSION
            self._header[Header.SLOTS] = slots
        self.serial = self._newest()
        self.fold = Fold()

    def _newest(self) -> int:
        """Serial number of the newest record: whoever wrote it may have been killed before the header said so."""
        newest = self._header[_COUNT]
        for _ in range(self.slots):
            if self.entries[newest % self.slots][0] >> 20 != newest + 1:
                break
            newest += 1
        return newest

    @property
    def header(self) -> memoryview:
        """Words of the header."""
        return self._header

    def newest_slots(self, limit: int) -> list[tuple[int, ...]]:
        """The newest records, at most `limit`, oldest first."""
        newest = self.serial
        first = max(newest - min(limit, self.slots), 0)
        found = [tuple(self.entries[serial & self.mask]) for serial in range(first, newest)]
        return [slot for serial, slot in enumerate(found, first + 1) if slot[At.TAG] >> 20 == serial]

    def raw(self, serial: int, count: int) -> memoryview:
        """The bytes of `count` records from `serial` on, which must not go past the end of the file."""
        start = SLOTS_OFFSET + (serial - 1 & self.mask) * SLOT_BYTES
        return self._bytes[start : start + count * SLOT_BYTES]

    def describe(self, meta: dict[str, Any]) -> None:
        """Say of which guest it is. A document that is too long leaves out its longest part."""
        data = json.dumps(meta, separators=(",", ":")).encode()
        if len(data) > META_BYTES:
            data = json.dumps({**meta, "events": []}, separators=(",", ":")).encode()[:META_BYTES]
        self._header[Header.META_LENGTH] = 0
        self._bytes[HEADER_BYTES : HEADER_BYTES + len(data)] = data
        self._header[Header.META_LENGTH] = len(data)

    # ---- frames and transitions: the hot path ------------------------------------------------------------------------

    def frame(self, serial: int, pe: int, frame: memoryview, seen: int, *, ignored: bool = False) -> None:
        """Finish the record of a frame that is no call, whose slot has it as it was posted. `seen`: host time;
        `ignored`: it was not answered.
        """
        slot = self.entries[serial - 1 & self.mask]
        slot[OUTCOME] = frame[DONE]
        slot[At.ANSWER] = IGNORED if ignored else frame[Word.FLAGS]
        slot[At.TIME] = seen
        slot[At.TAG] = serial << 20 | pe << 8 | Type.STAMPED

    # ---- the rest ----------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """What was kept so far is finished: readers see it. Not while a frame is answered."""
        self._header[_COUNT] = self.serial

    def keep(self, kind: Type, vcpu: int | None, *words: int) -> None:
        """Keep a record of few words."""
        slot = self._next()
        for n, word in enumerate(words, At.DATA):
            slot[n] = word & _M64
        self._seal(slot, kind, vcpu)

    def text(self, name: str, vcpu: int | None, details: dict[str, Any]) -> None:
        """Keep something rare, in words: a JSON object with `name` and `details`, cut if it is very long."""
        data = json.dumps({"name": name, **details}, separators=(",", ":"), default=str).encode()
        if len(data) > MAX_TEXT:
            data = json.dumps({"name": name, "cut": data.decode("ascii", "replace")[: MAX_TEXT // 2]}).encode()
        slot = self._next()
        slot[At.DATA] = len(data)
        _fill(slot, At.DATA + 1, data[:TEXT_FIRST])
        self._seal(slot, Type.TEXT, vcpu)
        for start in range(TEXT_FIRST, len(data), TEXT_MORE):
            slot = self._next()
            _fill(slot, At.DATA, data[start : start + TEXT_MORE])
            self._seal(slot, Type.MORE, vcpu)

    def _next(self) -> memoryview:
        slot = self.entries[self.serial & self.mask]
        self.serial += 1
        slot[At.TAG] = 0
        return slot

    def _seal(self, slot: memoryview, kind: Type, vcpu: int | None) -> None:
        slot[At.TIME] = self.clock()
        slot[At.TAG] = self.serial << 20 | (NO_VCPU if vcpu is None else vcpu & 0xFFF) << 8 | kind


def _fill(slot: memoryview, first: int, data: bytes) -> None:
    part = slot[first:].cast("B")
    part[: len(data)] = data
    part[len(data) :] = bytes(len(part) - len(data))


def _mapped(path: Path, slots: int) -> tuple[mmap.mmap, bool]:
    """The file, mapped; whether it is a new one. One that is no ring of this form is begun anew."""
    if slots & slots - 1:
        raise ProtocolError(f"a ring of {slots} slots: the number is not a power of two")
    size = file_size(slots)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fresh = not _is_ring(fd, size, slots)
            if fresh:
                os.ftruncate(fd, 0)
                os.ftruncate(fd, size)
            # Now, and not by a SIGBUS at the first store, if the file system is full.
            os.posix_fallocate(fd, 0, size)
            return mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE), fresh
        finally:
            os.close(fd)
    except OSError as error:
        raise UsageError(
            f"trace ring {path} cannot be written: {error.strerror}; make room there, or set XDG_RUNTIME_DIR"
        ) from None


def _is_ring(fd: int, size: int, slots: int) -> bool:
    if os.fstat(fd).st_size != size:
        return False
    head = memoryview(os.pread(fd, 8 * len(Header), 0)).cast("Q")
    return [head[Header.MAGIC], head[Header.VERSION], head[Header.SLOTS]] == [MAGIC, VERSION, slots]
