"""Paths that a user or the environment names: what begins with ~, what cannot be read or written, where the cache is.

The environment is not to be trusted: HOME may be missing, relative or another user's, and a process in a container may
have a user id that nobody knows.
"""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError

_NAME_MAX: Final = 255
_PATH_MAX: Final = 4095
"""Bytes of a name and of a path that Linux takes (limits.h, without the NUL)."""


def expand(path: str | os.PathLike[str]) -> Path:
    """`path` with a leading `~` or `~USER` replaced.

    Raises:
        UsageError: it is too long, has a NUL in it, or there is no such home directory.
    """
    given = Path(path)
    raw = os.fsencode(given)
    if b"\0" in raw:
        raise UsageError(f"path {str(given)!r} has a NUL character in it")
    if len(raw) > _PATH_MAX or any(len(part) > _NAME_MAX for part in raw.split(b"/")):
        raise UsageError(f"path {str(given)[:60]}... is too long: {len(raw)} bytes")
    if not given.parts or not given.parts[0].startswith("~"):
        return given
    if given.parts[0] == "~":
        base = home()
        if base is None:
            raise UsageError(f"path {given} begins with ~, and user {os.getuid()} has no home directory: write it out")
        return Path(base, *given.parts[1:])
    try:
        return given.expanduser()
    except RuntimeError:
        raise UsageError(f"path {given}: there is no user {given.parts[0][1:]!r}: write it out") from None


def absolute(path: str | os.PathLike[str]) -> Path:
    """`expand`, and seen from the root. Raises `UsageError`: also where the working directory was removed."""
    given = expand(path)
    try:
        return given.absolute()
    except FileNotFoundError:
        raise UsageError("the working directory was removed: go to another one") from None


def resolved(path: str | os.PathLike[str]) -> Path:
    """`absolute`, with links followed as far as they lead. Raises `UsageError`: they lead in a circle."""
    given = absolute(path)
    try:
        return given.resolve(strict=True)
    except RuntimeError:
        circle = True
    except OSError as error:  # since Python 3.13, where it only tells of a circle when it is strict
        circle = error.errno == errno.ELOOP
    if circle:
        raise UsageError(f"path {given} leads in a circle")
    return given.resolve()


def home() -> Path | None:
    """The user's home directory: HOME if that is absolute, else what the user database says; None: nothing."""
    named = os.environ.get("HOME", "")
    if named.startswith("/"):
        return Path(named)
    try:
        found = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None
    return Path(found) if found.startswith("/") else None


def cache_directory() -> Path:
    """Where this program keeps what can be made again: `$XDG_CACHE_HOME/qemu-sdei`, else `~/.cache/qemu-sdei`. A
    relative XDG_CACHE_HOME does not count (XDG Base Directory Specification).

    Raises:
        UsageError: the user has no home directory.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    if named.startswith("/"):
        return expand(named) / "qemu-sdei"
    base = home()
    if base is None:
        raise UsageError(
            f"there is no place for the cache: HOME is not set and user {os.getuid()} is in no user database; "
            "set XDG_CACHE_HOME to a directory"
        )
    return base / ".cache" / "qemu-sdei"


def readable_file(path: str | Path, what: str) -> Path:
    """The absolute path of the regular file `path`. Raises `UsageError`."""
    file = expand(path)
    try:
        if not file.is_file():
            reason = (
                "it is a directory"
                if file.is_dir()
                else "it is not a regular file"
                if file.exists()
                else "no such file"
            )
            raise UsageError(f"{what} {file} cannot be read: {reason}")
        with file.open("rb"):
            pass
    except OSError as error:
        raise UsageError(f"{what} {file} cannot be read: {error.strerror}") from None
    return file.absolute()


def writable_file(path: str | Path, what: str) -> None:
    """Check that the file `path` can be written or made; it is not touched. Raises `UsageError`."""
    file = expand(path)
    if file.is_dir():
        reason = "it is a directory"
    elif not (file.exists() or file.parent.is_dir()):
        reason = f"there is no directory {file.parent}"
    elif not os.access(file if file.exists() else file.parent, os.W_OK):
        reason = "permission denied"
    else:
        return
    raise UsageError(f"{what} {file} cannot be written: {reason}")
