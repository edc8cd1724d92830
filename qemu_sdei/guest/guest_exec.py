"""`Guest.exec`: a command in a guest by its agent, with streams and an exit status of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei.errors import GuestTimeoutError
from qemu_sdei.guest.exec_frames import Stream
from qemu_sdei.guest.exec_session import ExecSession, claim, release

MOST: Final = 64 << 20
"""Bytes of each stream that are kept: the newest."""
_STEP: Final = 0.25


@dataclass(frozen=True)
class ExecResult:
    """Result of a command."""

    status: int
    """Exit status, 0 to 255."""
    stdout: bytes
    """Standard output, unchanged."""
    stderr: bytes
    """Standard error, unchanged."""


def run(where: Callable[[], Path], check: Callable[[], None], command: str, stdin: bytes, timeout: float) -> ExecResult:
    """Run `command` in the guest whose run directory is `where()`. `check` raises what ends the wait.

    Raises as `Guest.exec`.
    """
    kept = {Stream.OUTPUT: bytearray(), Stream.ERRORS: bytearray()}

    def sink(stream: Stream, data: bytes) -> None:
        kept[stream] += data
        if len(kept[stream]) > 2 * MOST:
            del kept[stream][:-MOST]

    directory = where()
    port, lock = claim(directory, directory.name)
    session = ExecSession(where, port, command, sink)
    deadline = time.monotonic() + timeout
    left, ended = memoryview(stdin), False
    try:
        while session.status is None:
            if session.room and not ended:
                part, left = left[: session.room], left[session.room :]
                ended = not part
                session.feed(bytes(part))
            session.step(min(_STEP, max(deadline - time.monotonic(), 0)))
            check()
            if time.monotonic() >= deadline and session.status is None:
                raise GuestTimeoutError(f"command {command[:60]!r} in the guest did not end within {timeout:g} s")
        output, errors = (bytes(data[-MOST:]) for data in kept.values())
        return ExecResult(session.status, output, errors)
    finally:
        session.close()
        release(lock)
