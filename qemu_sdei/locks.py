"""Locks that say who lives, and who holds them; sockets that only their user reaches.

A `flock` ends with the last descriptor of its file description, whatever became of the process: the kernel says who
lives, and no number of a process that could belong to another one by now is asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_VISIBLE: Final = 1.0
_KILLED: Final = 5.0
"""Seconds that the kernel may take to end a process that was killed."""


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock of the file `path` (made, 0600), or None while somebody else holds it.

    Raises `OSError`.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def holder(path: Path) -> tuple[int, int] | None:
    """Process id of, and a pidfd for, the process of this user that holds the `flock` on the file `path`."""
    for pid in _holders(path):
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            if _holds(pid, path):  # still: then the descriptor is for that process, and not for one that got its number
                return pid, pidfd
            os.close(pidfd)
    return None


def dying(path: Path) -> bool:
    """Whether the process that holds the `flock` on the file `path` is on its way out: it runs no more, but the kernel
    has not closed its files yet.
    """
    deadline = time.monotonic() + _VISIBLE
    while (found := holder(path)) is None:
        # Its first thread has ended, and another one is about to; or it is hidden from us.
        lock = try_lock(path)
        if lock is not None:
            os.close(lock)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    pid, pidfd = found
    os.close(pidfd)
    try:
        return not Path(f"/proc/{pid}/cmdline").read_bytes()  # its memory goes first
    except OSError:
        return True


def end_holders(path: Path, number: int = signal.SIGKILL, grace: float = _KILLED) -> bool:
    """Send a signal that ends a process to whoever holds the `flock` on the file `path`; True when all have ended
    within `grace` seconds.

    The process that a wrapper's lock was handed on to is found as well.
    """
    deadline = time.monotonic() + grace
    signalled: set[int] = set()
    while (found := holder(path)) is not None:
        pid, pidfd = found
        with contextlib.suppress(ProcessLookupError):
            if pid not in signalled:
                signal.pidfd_send_signal(pidfd, number)
                if number != signal.SIGKILL:
                    signal.pidfd_send_signal(pidfd, signal.SIGCONT)  # one that is stopped would not hear of it
        signalled.add(pid)
        over = ended(pidfd, deadline - time.monotonic())
        os.close(pidfd)
        if not over:
            return False
    return True


def ended(pidfd: int, timeout: float) -> bool:
    """Wait up to `timeout` seconds for the end of a process; True when it has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, 1000 * timeout)))


def _holders(path: Path) -> Iterator[int]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _holds(int(entry.name), path):
            yield int(entry.name)


def _holds(pid: int, path: Path) -> bool:
    """Whether one of the process's descriptors is the locked one (proc(5), fdinfo: not merely one of the file)."""
    with contextlib.suppress(OSError):
        wanted = path.stat()
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                info = entry.stat()
                same = (info.st_dev, info.st_ino) == (wanted.st_dev, wanted.st_ino)
                if same and "FLOCK" in Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text():
                    return True
    return False


def listening(path: Path, backlog: int = 1) -> socket.socket:
    """A unix socket that listens at `path`, with mode 0600 from its first moment on. Raises `OSError`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux gives the file that bind() makes the mode of the socket. (A umask is the whole process's.)
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(str(path))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def peer_uid(connection: socket.socket) -> int:
    """User id of the process at the other end of a unix socket, as of its connect() or listen() (SO_PEERCRED)."""
    return _peer(connection)[1]


def peer_pid(connection: socket.socket) -> int:
    """Process id of the same. One that was given the socket by another process has not called listen() itself."""
    return _peer(connection)[0]


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


def may_ask(connection: socket.socket) -> bool:
    """Whether the other end is a process of this user's, or root's."""
    return peer_uid(connection) in (0, os.getuid())
