"""Whether a process that is waited for is stopped (SIGSTOP, Ctrl-Z, a debugger), as procfs says, and what to do then.

A stopped process keeps its sockets and locks, so whoever waits for its answer would wait for ever. A wait that has
reached its limit asks here whose fault it was.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from qemu_sdei import locks

_LOCKS: Final = (("supervisor", "lock"), ("QEMU", "qemu.lock"), ("backend", "backend.lock"))
"""What the processes of a guest are called, and the file of the run directory that each has locked (`rundir`)."""


class Look(NamedTuple):
    """A process at one moment."""

    state: str
    """Its letter in proc(5): R, S, D, T, t, Z, ..."""
    cpu: int
    """CPU time of all its threads, in clock ticks."""

    @property
    def stopped(self) -> bool:
        """By a signal, or by a debugger."""
        return self.state in ("T", "t")


def look(pid: int) -> Look | None:
    """A process as it is now; None: it is gone, or cannot be seen."""
    try:
        # Behind the name, which may have spaces and parentheses of its own.
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return Look(words[0], int(words[11]) + int(words[12]))
    except (OSError, IndexError, ValueError):
        return None


def is_stopped(pid: int | None) -> bool:
    """Whether the process `pid` is stopped."""
    found = None if pid is None else look(pid)
    return found is not None and found.stopped


def remedy(pid: int) -> str:
    """What became of the stopped process `pid`, and what to do: the end of a sentence."""
    return f"is stopped (SIGSTOP, Ctrl-Z, a debugger): `kill -CONT {pid}` resumes it"


def described(what: str, pid: int) -> str:
    """One of a guest's processes that is stopped, in words."""
    return f"its {what}, process {pid}, {remedy(pid)}"


def owner(directory: Path) -> int | None:
    """Process id of the supervisor of the guest in a run directory; None: it has none."""
    return _holder(directory, "lock")


def processes(directory: Path) -> dict[str, int]:
    """Process ids of the guest in a run directory, by "supervisor", "QEMU" and "backend"; those that live."""
    found = ((what, _holder(directory, lock)) for what, lock in _LOCKS)
    return {what: pid for what, pid in found if pid is not None}


def age_ns(pid: int) -> int | None:
    """Nanoseconds since the process `pid` was started; None: it is gone, or cannot be seen."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        since_boot = int(words[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None
    return max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(since_boot * 1e9))


def of_guest(directory: Path) -> str:
    """Which processes of the guest in a run directory are stopped, and what to do; "" if none is."""
    return "; ".join(
        described(what, pid) for what, pid in processes(directory).items() if pid != os.getpid() and is_stopped(pid)
    )


def reason(directory: Path) -> str:
    """As `of_guest`, as the end of a message about that guest."""
    found = of_guest(directory)
    return f": {found}" if found else ""


def _holder(directory: Path, lock: str) -> int | None:
    try:
        found = locks.holder(directory / lock)
    except OSError:
        return None
    if found is None:
        return None
    os.close(found[1])
    return found[0]
