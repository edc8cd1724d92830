"""Guest RAM that both QEMU and the backend map: an anonymous memfd, or a file where the user wants one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

from qemu_sdei.config import MAX_RAM, MIN_RAM, format_size, parse_size, shown_ram
from qemu_sdei.errors import UsageError
from qemu_sdei.host import cgroup
from qemu_sdei.host.lost_pages import PAGE, TRACKED

_ALIGN = 8192
"""QEMU rounds what -m says up to a multiple of 8 KiB, and then refuses a backend that is smaller."""
_PADDED = 2 << 30
"""Bytes of RAM times vCPUs up to which RAM is padded where nobody has said so: QEMU then takes 1.4 s more to look for
dirty pages, once in each process that RAM is sent from.
"""


def ram_size(memory: str | int, *, padded: bool = False) -> int:
    """Bytes of RAM for `memory` (an int is bytes, a string is as QEMU's `-m`). `padded`: 8 KiB more, where QEMU would
    lose pages of RAM of just that size in a live migration. Raises `UsageError`.
    """
    size = parse_size(memory) if isinstance(memory, str) else memory
    if size < MIN_RAM:
        raise UsageError(f"memory {format_size(size)} is too small: a guest needs at least {format_size(MIN_RAM)}")
    if size > MAX_RAM:
        raise UsageError(
            f"memory {format_size(size)} is too much: the virt machine takes at most {format_size(MAX_RAM)}"
        )
    if size % _ALIGN:
        raise UsageError(f"memory {size} bytes is not a multiple of {_ALIGN}")
    if not padded or size % TRACKED:
        return size
    return size + _ALIGN if size + _ALIGN <= MAX_RAM else size - _ALIGN


def padded_by_default(memory: str | int, nr_cpus: int, directory: Path | None) -> bool:
    """Whether RAM of `memory` (see `ram_size`; an int is meant exactly) gets 8 KiB more where the user does not say.

    `directory` is where its file will be, if not in anonymous memory: files of huge pages have only whole ones.
    """
    if isinstance(memory, int) or parse_size(memory) * nr_cpus > _PADDED:
        return False
    try:
        return directory is None or os.statvfs(directory).f_bsize <= PAGE
    except OSError:
        return False  # `check_free` says what is wrong with it


def check_free(size: int, directory: Path | None, option: str = "--memory-path") -> None:
    """Raise `UsageError` when `size` bytes do not fit: in `directory` when given, else in the host's free memory.

    RAM that runs out later kills QEMU by SIGBUS in the middle of something, so it is looked at first. `option` is what
    the user gave `directory` by.
    """
    if directory is not None:
        try:
            info = os.statvfs(directory)
        except OSError as error:
            raise UsageError(f"{option} {directory} cannot be used: {error.strerror}") from None
        free = info.f_bavail * info.f_frsize
        if free < size:
            raise UsageError(
                f"{directory} has {_mebibytes(free)} free, the guest's RAM needs {shown_ram(size)}: "
                f"use less --memory or another {option}"
            )
        return
    free_memory = available()
    if free_memory is not None and free_memory < size:
        raise UsageError(
            f"the host has {_mebibytes(free_memory)} of memory available, the guest's RAM needs {shown_ram(size)}: "
            "use less --memory"
        )


def check_sent(fd: int, size: int, more: int, directory: Path | None) -> None:
    """Raise `UsageError` when sending RAM of `size` bytes, the file `fd` in `directory`, takes more room than there is
    besides `more` bytes: QEMU reads all of it, and what of a file in memory is read has room from then on.
    """
    if directory is not None:
        check_free(max(size - 512 * os.fstat(fd).st_blocks, 0) + more, directory)


def _mebibytes(size: int) -> str:
    return f"{size >> 20}M"


def available() -> int | None:
    """Bytes of memory that programs can still have (proc(5), MemAvailable, and what control groups leave); None if the
    host does not say.
    """
    room = cgroup.available()
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) << 10
                return free if room is None else min(free, room)
    except (OSError, ValueError, IndexError):
        pass
    return room


def create(size: int, directory: Path | None) -> int:
    """A descriptor (close-on-exec) of `size` bytes of zeroes that no path leads to, so that it ends with its last user.

    Raises `UsageError` when `directory` does not take it.
    """
    try:
        fd = _unnamed_file(directory) if directory else os.memfd_create("qemu-sdei-ram", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
    except OSError as error:
        where = f"in {directory}" if directory is not None else "in memory"
        raise UsageError(f"the guest's RAM of {shown_ram(size)} cannot be made {where}: {error.strerror}") from None
    return fd


def create_named(path: Path, size: int) -> None:
    """Make the RAM file `path` for a QEMU of the user's own, mode 0600; one of theirs that is there already stays.

    Raises `UsageError` when it cannot be made, or what is there is no file of the user with `size` bytes.
    """
    try:
        with contextlib.suppress(FileExistsError):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.truncate(size)
            return
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.getuid() or info.st_size != size:
            raise UsageError(f"{path} is in the way: it is not your file, or has not {size} bytes: remove it")
        if info.st_mode & 0o077:
            # QEMU made it: the guest's memory is for nobody else to read.
            path.chmod(0o600)
    except OSError as error:
        raise UsageError(f"RAM file {path} cannot be made: {error.strerror}") from None


def _unnamed_file(directory: Path) -> int:
    """A file with mode 0600 that QEMU and the backend reach by its descriptor only."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # File systems without O_TMPFILE (NFS, some FUSE).
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    fd, name = tempfile.mkstemp(prefix="qemu-sdei-ram-", dir=directory)
    Path(name).unlink()
    return fd
