"""The text of a guest's ftrace, `/sys/kernel/tracing/trace`, line by line, however long it is and whatever is in it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Final, NamedTuple

from qemu_sdei.errors import UsageError

_MAX_LINE: Final = 1 << 16
_SECOND: Final = 1_000_000_000

_LINE: Final = re.compile(
    rb"\s*+(?P<task>.{1,16}?)-(?P<pid>\d{1,10})\s++(?:\(\s*+[\d-]{1,10}\)\s++)?\[(?P<cpu>\d{1,4})\]\s++"
    rb"(?:(?P<flags>[^\s\d:]\S{2,8})\s++)?(?P<seconds>\d{1,12})(?:\.(?P<fraction>\d{1,9}))?:\s++(?P<rest>.*)"
)
"""TASK-PID, maybe (TGID), [CPU], maybe latency flags, the time, and what happened."""
_NAME: Final = re.compile(rb"([A-Za-z_][A-Za-z0-9_.]{0,99}): ?(.*)")
_LOST: Final = re.compile(rb"CPU:(\d{1,4}) \[LOST (\d{1,18}) EVENTS\]\s*+")


class Line(NamedTuple):
    """A line of ftrace."""

    number: int
    task: bytes
    pid: int
    vcpu: int
    flags: bytes
    guest_ns: int
    unit_ns: int
    """What the last digit of the time stands for: it may be rounded up or down."""
    event: bytes
    text: bytes


class Lost(NamedTuple):
    """A line that says how many the guest's buffer had no room for."""

    number: int
    vcpu: int
    events: int


def parsed(number: int, text: bytes) -> Line | None:
    """A line of ftrace as tracefs prints it, or `trace-cmd report`; None: it is something else."""
    found = _LINE.fullmatch(text.rstrip(b"\r\n"))
    if found is None:
        return None
    fraction = found["fraction"] or b""
    digits = len(fraction)
    unit = 10 ** (9 - digits)
    rest = found["rest"]
    named = _NAME.fullmatch(rest)
    event, words = (named[1], named[2]) if named is not None else (b"function", rest)
    return Line(
        number,
        found["task"].strip(),
        int(found["pid"]),
        int(found["cpu"]),
        found["flags"] or b"",
        int(found["seconds"]) * _SECOND + int(fraction or b"0") * unit,
        unit,
        event,
        words,
    )


def lost(number: int, text: bytes) -> Lost | None:
    """What a line says that is missing; None: it says something else."""
    found = _LOST.fullmatch(text)
    return None if found is None else Lost(number, int(found[1]), int(found[2]))


def lines_of(file: BufferedReader) -> Iterator[bytes]:
    """Its lines; of one that is too long the beginning."""
    while text := file.readline(_MAX_LINE):
        yield text
        while not text.endswith(b"\n"):
            text = file.readline(_MAX_LINE)
            if not text:
                return


def opened(path: Path) -> BufferedReader:
    """A regular file: it is read twice, and a FIFO would be waited for."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"ftrace {path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"ftrace {path} cannot be read: it is not a regular file (copy a pipe's output into one)")
    return os.fdopen(fd, "rb")
