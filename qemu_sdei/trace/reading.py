"""Reads a trace wherever it is: a guest's ring, a trace file, JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from io import BufferedReader, FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from qemu_sdei import bounded
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.trace.align import AHEAD, aligned
from qemu_sdei.trace.decode import Decoder, Record
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.trace.ring_reader import RingReader
from qemu_sdei.trace.slots import MAGIC as RING_MAGIC
from qemu_sdei.trace.trace_file import MAGIC as FILE_MAGIC
from qemu_sdei.trace.trace_file import TraceFile

_MAX_LINE: Final = 1 << 20
_SLOTS_AT_ONCE: Final = 4096


class Reading:
    """A trace that is being read; a context manager.

    Attributes:
        meta: of which guest it is.
    """

    def __init__(self, meta: TraceMeta, records: Callable[[], Iterator[Record]], close: Callable[[], None]) -> None:
        self.meta = meta
        self.records = records
        """Call it once: the records, from the oldest to the newest. What is missing is a record of type `dropped`."""
        self.close = close

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_trace(path: Path) -> Reading:
    """The trace in `path`: the ring of a guest (of a run directory: see `rundir.TRACE`), the file of `run --trace`, or
    JSON lines of `qemu-sdei trace --json`.

    Raises:
        UsageError: it cannot be read, is none of these, of another version, or damaged at its beginning.
    """
    file = _opened(path)
    try:
        return _reading(file, path)
    except BaseException as error:
        file.close()
        if isinstance(error, ProtocolError):
            raise UsageError(str(error)) from None
        raise


def _reading(file: BufferedReader, path: Path) -> Reading:
    """See `open_trace`; of a ring the file is closed."""
    head = file.peek(16)[:16]
    if int.from_bytes(head[:8], "little") == RING_MAGIC:
        file.close()
        ring = RingReader(path)
        return Reading(ring.meta, lambda: records_of(ring.meta, ring_slots(ring)), ring.close)
    if head[:8] == FILE_MAGIC:
        trace = TraceFile(file, path)
        return Reading(trace.meta, lambda: _of_file(trace), trace.close)
    if head[:1] == b"{":
        meta = _first_line(file, path)
        return Reading(meta, lambda: _of_lines(file), file.close)
    raise ProtocolError(f"{path} is not a trace: neither the file of `run --trace` nor JSON lines of `trace --json`")


def _opened(path: Path) -> BufferedReader:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(fd, True)
        return BufferedReader(FileIO(fd), 1 << 16)
    except OSError as error:
        raise UsageError(f"trace {path} cannot be read: {error.strerror}") from None


# ---- slots -----------------------------------------------------------------------------------------------------------


def ring_slots(ring: RingReader) -> Iterator[tuple[int, ...]]:
    """All that a ring has now, what its writer is at included."""
    end = ring.begun
    while True:
        slots = ring.take(_SLOTS_AT_ONCE, unfinished=True)
        yield from slots
        if not slots or slots[-1][0] >> 20 >= end:
            return


class Numbering:
    """Numbers records as they come: gaps between serial numbers are what was dropped, and a number that goes back
    begins with a ring of another backend's.
    """

    def __init__(self, before: int = 0) -> None:
        """`before`: serial number of the record that was the newest before these are read."""
        self._last = before
        self.base = 0
        """What is added to the number of a record."""

    def missing(self, slot: tuple[int, ...]) -> int:
        """How many records are missing before this one."""
        serial = slot[0] >> 20
        last, self._last = self._last, serial
        if serial <= last:
            self.base += 2 * last
            return serial - 1
        return serial - last - 1


def records_of(
    meta: TraceMeta, slots: Iterable[tuple[int, ...]], *, ahead: int = AHEAD, before: int = 0
) -> Iterator[Record]:
    """The records of slots in their order, with `dropped` where some are missing. `ahead`: see `aligned`; `before`:
    serial number of the newest record that is not to be there.
    """
    return aligned(_decoded(meta, slots, before), meta.counter_hz, ahead)


def _decoded(meta: TraceMeta, slots: Iterable[tuple[int, ...]], before: int) -> Iterator[Record]:
    decoder, numbering = Decoder(meta.monitor), Numbering(before)
    for slot in slots:
        yield from numbered(decoder, numbering, slot)


def numbered(decoder: Decoder, numbering: Numbering, slot: tuple[int, ...]) -> Iterator[Record]:
    """The records of the next slot of a trace, with `dropped` before it if some are missing there."""
    missing = numbering.missing(slot)
    if missing:
        yield dropped(missing, numbering.base + 2 * (slot[0] >> 20))
    for record in decoder.records(slot):
        record["n"] += numbering.base
        yield record


def dropped(count: int, before: int) -> Record:
    """The record that says that `count` are missing before record number `before`; without a time."""
    return {"n": before - 1, "type": "dropped", "vcpu": None, "time_ns": None, "counter": None, "count": count}


def _of_file(trace: TraceFile) -> Iterator[Record]:
    last: Record | None = None
    for last in records_of(trace.meta, trace.slots()):
        yield last
    if trace.cut:
        yield _damaged(last, 1, "the file ends in the middle of a record")


def _damaged(last: Record | None, count: int, why: str) -> Record:
    """The record that says that a file is damaged behind `last`: it stands where that one does."""
    n, at, error = (0, 0, 0) if last is None else (last["n"], last["at_ns"], last.get("at_error_ns", 0))
    return {**dropped(count, n + 1), "at_ns": at, "at_error_ns": error, "why": why}


# ---- JSON lines ------------------------------------------------------------------------------------------------------


def _first_line(file: BufferedReader, path: Path) -> TraceMeta:
    try:
        return TraceMeta.of(bounded.loads(file.readline(_MAX_LINE)))
    except (ValueError, ProtocolError) as error:
        raise ProtocolError(f"{path} is not a trace: {error}") from None


def _of_lines(file: BufferedReader) -> Iterator[Record]:
    bad = 0
    last: Record | None = None
    while line := file.readline(_MAX_LINE):
        record = _of_line(line)
        if record is None:
            bad += 1
            continue
        if bad:
            yield _damaged(last or record, bad, f"{bad} lines are no records")
            bad = 0
        last = record
        yield record
    if bad:
        yield _damaged(last, bad, f"{bad} lines are no records")


def _of_line(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        return None
    if not all(type(record.get(name)) is int for name in ("n", "at_ns")):
        return None
    if not all(type(record.get(name)) in (int, type(None)) for name in ("vcpu", "time_ns")):
        return None
    if type(record.setdefault("at_error_ns", 0)) is not int:
        return None
    return record
