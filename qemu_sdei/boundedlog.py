"""Log files with a bound: whatever a guest has its QEMU or its backend say, for however long.

A file keeps its beginning (why something did not start) and its end (why it ended). A line between the two says how
many bytes were cut. Several processes may append to one file, each by its own `BoundedLog`.

QEMU writes into a pipe, and who supervises it writes the file: a file that QEMU had itself would grow while nobody
looks. QEMU inherits both ends of the pipe, so it never meets one without a reader (EPIPE); and the pipe does not block:
what does not fit, because nobody reads, QEMU drops.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import struct
import time
from pathlib import Path
from typing import Final

from qemu_sdei.rundir import BACKEND_LOG

LIMIT: Final = 1 << 20
"""Bytes of qemu.log and of backend.log."""
HEAD: Final = 64 << 10
TAIL: Final = 256 << 10
"""Bytes of the beginning and of the end that are kept when a file has come to its limit."""
CONSOLE_LIMIT: Final = 16 << 20
"""Bytes of console.log: what the guest printed first. The line that says that there was more comes on top."""
TIMES: Final = ".times"
"""Ends the name of the file beside it that says when what was printed: pairs of a time and a place in the log."""
_TIME: Final = struct.Struct("<dQ")
_TIMES_LIMIT: Final = 1 << 20
_CONSOLE_FULL: Final = b"\r\n[qemu-sdei: console.log is full: what the guest prints from here on is not kept]\r\n"
_CUT: Final = re.compile(rb"\[qemu-sdei: ([0-9]{1,18}) bytes were cut here\]\n")
_LONGEST: Final = 64
"""Bytes of such a line, at most."""
_CHUNK: Final = 64 << 10
_MOST: Final = 4 << 20
_PIPE: Final = 1 << 20
"""Bytes that a pipe takes while its reader is late, where the user may have so much."""


class BoundedLog:
    """One log file, to append to."""

    def __init__(self, path: Path) -> None:
        """Open or make the file `path` (0600). Raises `OSError`."""
        self._append = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            os.close(self._append)
            raise

    def write(self, data: bytes) -> None:
        """Append; what there is no room for on the disk is dropped, the log must not end what it tells of."""
        with contextlib.suppress(OSError):
            for start in range(0, len(data), _CHUNK):
                part = data[start : start + _CHUNK]
                self.cut(len(part))
                os.write(self._append, part)

    def cut(self, more: int = 0) -> None:
        """Cut the file if it has no room for `more` bytes. Raises `OSError`."""
        size = os.fstat(self._file).st_size
        if size + more <= LIMIT:
            return
        head = os.pread(self._file, HEAD + _LONGEST, 0)
        tail = os.pread(self._file, TAIL, size - TAIL)
        before = 0
        if (known := _CUT.search(head)) is not None:
            before = int(known[1])
            kept, skipped = head[: known.start()], len(known[0])
        else:
            kept, skipped = _until_line_end(head[:HEAD]), 0
        tail = _from_line_start(tail)
        cut = before + size - len(kept) - skipped - len(tail)
        data = kept + b"[qemu-sdei: %d bytes were cut here]\n" % cut + tail
        # In place: it takes no room on a full disk, and the end of the file is whole at each moment.
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))

    def close(self) -> None:
        """Close the file."""
        os.close(self._append)
        os.close(self._file)


def _until_line_end(data: bytes) -> bytes:
    end = data.rfind(b"\n") + 1
    return data[:end] if end else data[:-1] + b"\n"


def _from_line_start(data: bytes) -> bytes:
    return data[data.find(b"\n") + 1 :]


def cut(path: Path) -> None:
    """Cut a log that other processes append to, if it is too large; does nothing where that cannot be."""
    with contextlib.suppress(OSError):
        log = BoundedLog(path)
        with contextlib.suppress(OSError):
            log.cut()
        log.close()


def pipe() -> tuple[int, int]:
    """A pipe for QEMU's output: ends to read from and to write to, neither of which blocks. Raises `OSError`."""
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    with contextlib.suppress(OSError):  # beyond what the user may have in pipes it is smaller
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE)
    return ends


def take(fd: int, log: BoundedLog) -> int | None:
    """Move what lies in a pipe, 64 KiB at most, into `log`; return how many bytes. None: nobody writes any more."""
    try:
        data = os.read(fd, _CHUNK)
    except BlockingIOError:
        return 0
    log.write(data)
    return len(data) or None


def drain(fd: int, log: BoundedLog) -> None:
    """Move all that lies in a pipe into `log`; of one who writes on and on no more than any pipe has."""
    left = _MOST
    while left > 0 and (taken := take(fd, log)):
        left -= taken


class _Raw(io.RawIOBase):
    """A log as a stream."""

    def __init__(self, log: BoundedLog, fd: int) -> None:
        super().__init__()
        self._log = log
        self._fd = fd

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd  # for programs that a user's service starts

    def write(self, data: object) -> int:
        part = bytes(memoryview(data))  # type: ignore[arg-type]
        self._log.write(part)
        return len(part)


def streams(directory: Path) -> tuple[io.TextIOWrapper, io.TextIOWrapper]:
    """Standard output and error for a backend, both to the log of its run directory. Raises `OSError`."""
    log = BoundedLog(directory / BACKEND_LOG)
    out, error = (
        io.TextIOWrapper(
            io.BufferedWriter(_Raw(log, fd)), encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
        for fd in (1, 2)
    )
    return out, error


class ConsoleLog:
    """console.log: the beginning of what a guest prints, and a line that says so where there is more."""

    def __init__(self, path: Path) -> None:
        """Append to the file `path`. Raises `OSError`."""
        self._file = path.open("ab", buffering=0)
        self._times = path.with_name(path.name + TIMES)
        self._noted = 0.0

    def write(self, data: bytes) -> None:
        """Take what was printed; a full disk must not end the guest."""
        with contextlib.suppress(OSError):
            size = os.fstat(self._file.fileno()).st_size
            room = CONSOLE_LIMIT - size
            if room > 0:
                self._note(size)
                self._file.write(data if len(data) < room else data[:room] + _CONSOLE_FULL)

    def _note(self, size: int) -> None:
        """When what comes now was printed, at most once a second."""
        now = time.monotonic()
        if self._noted and now - self._noted < 1:
            return
        self._noted = now
        with self._times.open("ab", buffering=0) as file:
            if os.fstat(file.fileno()).st_size < _TIMES_LIMIT:
                file.write(_TIME.pack(time.time(), size))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def position(path: Path, moment: float) -> int:
    """Where in the console log `path` that begins which was printed since `moment` (seconds since 1970), to a second.

    Everything, where it is not known when it was printed.
    """
    try:
        data = path.with_name(path.name + TIMES).read_bytes()
    except OSError:
        return 0
    times = _TIME.iter_unpack(data[: len(data) - len(data) % _TIME.size])
    later = [at for when, at in times if when >= moment]
    try:
        return later[0] if later else path.stat().st_size
    except OSError:
        return 0
