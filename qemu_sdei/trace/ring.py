"""The trace ring's writer: what a backend does, always, at the cost of some hundred nanoseconds a record."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.trace.slots import (
    HEADER_BYTES,
    MAGIC,
    MAX_TEXT,
    META_BYTES,
    NO_VCPU,
    SLOT_BYTES,
    SLOT_WORDS,
    SLOTS,
    SLOTS_OFFSET,
    STAMP_EVERY,
    TEXT_FIRST,
    TEXT_MORE,
    VERSION,
    At,
    Header,
    Type,
    file_size,
)

PART: Final = 64
"""Slots of a part of the ring: a power of two."""
STEP: Final = 1 << 20
"""What a tag grows by from one record to the next."""
Place = tuple[slice, slice, int, bool]
"""Of a part: where the frame goes (`POSTED` of it), where its answer goes (`DONE`), index of the slot's first word, and
whether a call there may do without a host time.
"""
_PLACES: Final[list[Place]] = [
    (slice(at + At.DATA, at + At.DATA + 16), slice(at + At.OUTCOME, at + At.OUTCOME + 4), at, n % STAMP_EVERY > 0)
    for n, at in enumerate(range(0, PART * SLOT_WORDS, SLOT_WORDS))
]
Begun = tuple[memoryview, Place, int]
"""A record of a frame that is being answered: the part and the place where it stands, its tag."""
_COUNT: Final = int(Header.COUNT)
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF


class Ring:
    """The newest records of one guest, in a file that survives this process.

    `CallFrames.frame` writes into the slots by itself, because a call costs as much as a record. It takes the next slot
    as `take` does. What it needs for that are few objects, which stay in a core's first cache: a view of the part of
    the ring that is written to now, and the places in it, which are the same in each part. A view for each slot would
    be megabytes of them, each looked at once in a turn round the ring.

    Attributes:
        clock: gives the host's monotonic time in nanoseconds.
        slots: how many records it keeps.
        part: words of the part that has the newest record.
        places: those of the part that are still free, the next one last; always the same list.
        tag: of the newest record, as of a FRAME of vCPU 0.
        word: the transition that goes into the slot of the call that it comes of, as in At.ANSWER; 0: a call is being
            answered, and none has come of it yet; -1: no call is.
    """

    __slots__ = ("_bytes", "_header", "_map", "_parts", "clock", "part", "places", "slots", "tag", "word")

    def __init__(self, path: Path, clock: Callable[[], int], slots: int = SLOTS) -> None:
        """Go on with the ring at `path`, or make one of `slots` (a power of two).

        Raises:
            UsageError: the file cannot be made: no room, no permission.
        """
        self.clock = clock
        self.slots = slots
        self._map, fresh = _mapped(path, slots)
        self._bytes = memoryview(self._map)
        words = self._bytes.cast("Q")
        self._header = words[: HEADER_BYTES // 8]
        first, length = SLOTS_OFFSET // 8, min(PART, slots) * SLOT_WORDS
        self._parts = [words[at : at + length] for at in range(first, first + slots * SLOT_WORDS, length)]
        if fresh:
            self._header[Header.MAGIC] = MAGIC
            self._header[Header.VERSION] = VERSION
            self._header[Header.SLOTS] = slots
        self.tag = self._newest() << 20 | Type.FRAME
        self.places: list[Place] = []
        self.enter_part()
        self.word = -1

    def _newest(self) -> int:
        """Serial number of the newest record: whoever wrote it may have been killed before the header said so."""
        newest = self._header[_COUNT]
        for _ in range(self.slots):
            if self.slot(newest + 1)[At.TAG] >> 20 != newest + 1:
                break
            newest += 1
        return newest

    @property
    def serial(self) -> int:
        """Number of the newest record; 0: there is none."""
        return self.tag >> 20

    def slot(self, serial: int) -> memoryview:
        """The words of the slot that record `serial` has, or had."""
        part, at = divmod(serial - 1 & self.slots - 1, PART)
        return self._parts[part][at * SLOT_WORDS : (at + 1) * SLOT_WORDS]

    def enter_part(self) -> None:
        """The part that the next record belongs to is the one that is written to: there was no free place any more."""
        part, at = divmod(self.serial & self.slots - 1, PART)
        self.part = self._parts[part]
        self.places[:] = _PLACES[at : min(PART, self.slots)][::-1]

    def take(self) -> Place:
        """The place of the next record, in `part`; `tag` is that of the record then."""
        if not self.places:
            self.enter_part()
        self.tag += STEP
        return self.places.pop()

    @property
    def header(self) -> memoryview:
        """Words of the header."""
        return self._header

    def newest_slots(self, limit: int) -> list[tuple[int, ...]]:
        """The newest records, at most `limit`, oldest first."""
        newest = self.serial
        first = max(newest - min(limit, self.slots), 0) + 1
        found = [tuple(self.slot(serial)) for serial in range(first, newest + 1)]
        return [slot for serial, slot in enumerate(found, first) if slot[At.TAG] >> 20 == serial]

    def raw(self, serial: int, count: int) -> memoryview:
        """The bytes of `count` records from `serial` on, which must not go past the end of the file."""
        start = SLOTS_OFFSET + (serial - 1 & self.slots - 1) * SLOT_BYTES
        return self._bytes[start : start + count * SLOT_BYTES]

    def describe(self, meta: dict[str, Any]) -> None:
        """Say of which guest it is. A document that is too long leaves out its longest part."""
        data = json.dumps(meta, separators=(",", ":")).encode()
        if len(data) > META_BYTES:
            data = json.dumps({**meta, "events": []}, separators=(",", ":")).encode()[:META_BYTES]
        self._header[Header.META_LENGTH] = 0
        self._bytes[HEADER_BYTES : HEADER_BYTES + len(data)] = data
        self._header[Header.META_LENGTH] = len(data)

    # ---- the rest ----------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """What was kept so far is finished: readers see it. Not while a frame is answered."""
        self._header[_COUNT] = self.serial

    def begin(self, vcpu: int, posted: memoryview) -> Begun:
        """Begin the record of a frame that is no call. `posted`: `POSTED` of the frame."""
        place = self.take()
        self.part[place[0]] = posted
        return self.part, place, self.serial << 20 | vcpu << 8 | Type.STAMPED

    def finish(self, begun: Begun, done: memoryview, flags: int, seen: int) -> None:
        """Finish it. `done`: `DONE` of the frame; `flags`: those of its answer, or IGNORED; `seen`: host time."""
        part, (_, outcome, at, _), tag = begun
        part[outcome] = done
        part[at + At.ANSWER] = flags
        part[at + At.TIME] = seen
        part[at + At.TAG] = tag

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
        _, _, at, _ = self.take()
        slot = self.part[at : at + SLOT_WORDS]
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
