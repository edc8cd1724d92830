"""The trace file of `run --trace FILE`: what was in the ring, all of it, as raw as it was there.

    magic (8 bytes) | version, length of the JSON document (two 4-byte words) | the document | slots to the end

A guest that moves, or whose backend is replaced, goes on in the same file: serial numbers begin anew there. What the
disk was too slow for is missing, and its reader says so: numbers do not follow each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from qemu_sdei import bounded
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.rundir import WARNING
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.trace.ring import Ring
from qemu_sdei.trace.slots import META_BYTES, SLOT_BYTES, SLOT_WORDS, VERSION, Header

MAGIC: Final = b"QSTRACEF"
_HEAD: Final = struct.Struct("<8sII")
_SLOT: Final = struct.Struct(f"<{SLOT_WORDS}Q")
_EVERY: Final = 0.02
"""Seconds between two writes: at 50,000 records a second an eighth of the ring."""
_MARGIN: Final = 256
"""Slots of the ring that are not copied once it has come round: the writer may be at them."""
_CHUNK: Final = 512
"""Slots that are read from a file at once."""


class Recorder:
    """Copies what comes into a ring into a trace file, in a thread of its own, so that no vCPU waits for the disk.

    What cannot be written ends the file, with a warning, and not the guest.
    """

    def __init__(
        self, ring: Ring, path: Path, meta: dict[str, Any], paused: Callable[[], bool] = lambda: False, *, anew: bool
    ) -> None:
        """Begin to write to `path`; `anew`: the guest begins, else the file goes on. While the guest is `paused`
        nothing is written: it may be at another backend, which writes to the same file.

        Raises:
            UsageError: it cannot be opened, or is something else than a trace.
        """
        self._ring = ring
        self._path = path
        self._fd = _opened(path, anew)
        self._stop = threading.Event()
        self._failed = False
        self._paused = paused
        self._lock = threading.Lock()
        try:
            if os.fstat(self._fd).st_size == 0:
                data = json.dumps(meta, separators=(",", ":")).encode()[:META_BYTES]
                self._write(_HEAD.pack(MAGIC, VERSION, len(data)) + data)
        except OSError as error:
            self._fail(error)
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY) and not self._failed:
            if not self._paused():
                self.copy()

    def copy(self) -> None:
        """Write what is new. Holds the interpreter only for moments: the loop that answers frames needs it."""
        with self._lock:
            self._copy()

    def _copy(self) -> None:
        ring = self._ring
        end, saved = ring.header[Header.COUNT], ring.header[Header.SAVED]
        if saved > end:
            saved = 0  # of another guest
        first = max(saved, end - ring.slots + _MARGIN) if end > ring.slots - _MARGIN else saved
        try:
            while first < end:
                count = min(end - first, ring.slots - first % ring.slots)
                self._write(ring.raw(first + 1, count))
                first += count
                ring.header[Header.SAVED] = first
        except OSError as error:
            self._fail(error)

    def _write(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._fd, left) :]

    def close(self) -> None:
        """Write the rest, and end the file."""
        self._stop.set()
        self._thread.join()
        if not self._failed and not self._paused():
            self.copy()
        os.close(self._fd)

    def _fail(self, error: OSError) -> None:
        self._failed = True
        text = f"{WARNING}the trace {self._path} is not complete, the guest goes on without it: {error.strerror}"
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def _opened(path: Path, anew: bool) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(f"trace {path} cannot be written: {error.strerror}") from None
    try:
        if (begins := is_trace_file(fd)) is False:
            raise UsageError(f"trace {path} would write over a file that is not a trace: choose another name")
        if anew and begins:
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_trace_file(fd: int) -> bool | None:
    """Whether a file begins as a trace; None: it is empty, or no regular one."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return None
    head = os.pread(fd, len(MAGIC), 0)
    return head == MAGIC if head else None


class TraceFile:
    """A trace file, to read.

    Attributes:
        meta: of which guest it is.
        cut: bytes of a record that the end of the file has cut off; known when all was read.
    """

    def __init__(self, file: BufferedReader, path: Path) -> None:
        """Read its header from `file`, which this object closes.

        Raises:
            ProtocolError: it is no trace file of this version.
        """
        self._file = file
        self.cut = 0
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or head[: len(MAGIC)] != MAGIC:
            raise ProtocolError(f"{path} is not a trace file")
        _, version, length = _HEAD.unpack(head)
        if version != VERSION:
            raise ProtocolError(f"{path} is a trace file of version {version}; this program reads version {VERSION}")
        data = file.read(length) if 0 < length <= META_BYTES else b""
        try:
            self.meta = TraceMeta.of(bounded.loads(data))
        except (ValueError, ProtocolError) as error:
            raise ProtocolError(f"{path}: the trace file's header is damaged: {error}") from None

    def slots(self) -> Iterator[tuple[int, ...]]:
        """Its slots, from the first to the last that is whole."""
        size = _SLOT.size
        while data := self._file.read(_CHUNK * size):
            whole = len(data) - len(data) % size
            yield from _SLOT.iter_unpack(data[:whole])
            if whole < len(data):
                self.cut = len(data) - whole
                return

    def close(self) -> None:
        """Close it."""
        self._file.close()


assert _SLOT.size == SLOT_BYTES
