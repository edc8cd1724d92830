"""The directory that holds all run directories of a user: where it is, whether it can be trusted, and its lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.locks import holder

SUN_PATH_MAX: Final = 107
"""Bytes in `sockaddr_un.sun_path` (unix(7)) without the final NUL."""
_BASE_LOCK: Final = 20.0
"""Seconds to wait for the lock of the base directory: whoever holds it ends the processes of a dead guest, at most."""


def base_path() -> Path:
    """The directory that holds all run directories of this user; it need not exist.

    Raises `UsageError`: XDG_RUNTIME_DIR cannot be looked at, or is a directory in which others could put theirs in its
    place.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    try:
        info = Path(runtime).stat() if runtime.startswith("/") else None
    except (FileNotFoundError, NotADirectoryError):
        info = None  # of a session that is over, or of another machine
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"XDG_RUNTIME_DIR is {runtime[:100]}, which cannot be used ({reason}): unset it, or name another directory"
        ) from None
    if info is not None and stat.S_ISDIR(info.st_mode):
        if info.st_uid not in (0, os.getuid()) or info.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            raise UsageError(
                f"XDG_RUNTIME_DIR is {runtime}, which other users can change: unset it, or name a directory of yours"
            )
        return Path(runtime) / "qemu-sdei"
    return Path(f"/tmp/qemu-sdei-{os.getuid()}")  # made 0700, and its owner is checked


def check_socket_path(path: Path, what_to_do: str) -> None:
    """Raise `UsageError` when no unix socket can have this path."""
    length = len(os.fsencode(path))
    if length > SUN_PATH_MAX:
        raise UsageError(f"socket path is too long ({length} bytes, the limit is {SUN_PATH_MAX}): {path}; {what_to_do}")


def make_base() -> Path:
    """`base_path`, made and looked at. Raises `UsageError`: it cannot be used, or is another user's."""
    base = base_path()
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        info = base.lstat()
    except OSError as error:
        raise UsageError(f"run directory {base} cannot be used ({error.strerror}); set XDG_RUNTIME_DIR") from None
    # In /tmp anyone could have made it first and would then own our sockets.
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise UsageError(f"{base} is not your directory with mode 0700: remove it, or set XDG_RUNTIME_DIR")
    return base


@contextlib.contextmanager
def base_locked(base: Path) -> Iterator[None]:
    """Nobody else makes, adopts or removes a run directory meanwhile. Raises `UsageError`: its lock is held on."""
    fd = os.open(base / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd, base / ".lock")
        yield
    finally:
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    """Lock the file `path`, open as `fd`, which others hold for a moment only. Raises `UsageError`: one holds it on."""
    deadline = time.monotonic() + _BASE_LOCK
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                found = holder(path)
                who = "another process"
                if found is not None:
                    os.close(found[1])
                    who = f"process {found[0]}"
                raise UsageError(
                    f"{path} was held by {who} for {_BASE_LOCK:g} s: is it stopped (`kill -CONT`), or does it hang?"
                ) from None
        time.sleep(0.005)
