"""A guest whose owner was killed: taken over, or ended.

The kernel says what is true: who holds the run directory's locks lives, and QEMU's descriptors are in procfs. QEMU goes
on as it is; its backend is replaced, which is harmless (docs/concepts.md, crash recovery).
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from typing import Final

from qemu_sdei import fetching, locks, rundir, stopped
from qemu_sdei import untrusted_files as saved_files
from qemu_sdei.config import MAX_CONFIG, GuestConfig
from qemu_sdei.errors import GuestError, LostGuestError, ProtocolError, UsageError
from qemu_sdei.migration.cancelling import cancel
from qemu_sdei.migration.source import execute
from qemu_sdei.monitor.image import version_of
from qemu_sdei.rundir import RunDirectory, Running
from qemu_sdei.vm.description import Description
from qemu_sdei.vm.place import found
from qemu_sdei.vm.process import Process
from qemu_sdei.vm.supervisor import Supervisor

_CANCELLED: Final = 10.0
_FETCHED: Final = 600.0
_POLL: Final = 0.05
_GRACE: Final = 3.0
"""Seconds for QEMU to write to its disks what it has, and for a backend to end its trace."""
_MIGRATING: Final = frozenset(("setup", "active", "device", "pre-switchover", "cancelling"))


class Adoption:
    """A guest that has no owner, from `take` on ours."""

    def __init__(
        self,
        directory: RunDirectory,
        description: Description,
        config: GuestConfig,
        ram_fd: int,
        qemu: tuple[int, int],
        output: int | None,
    ) -> None:
        self.directory = directory
        self.description = description
        self.config = config
        self.ram_fd = ram_fd
        self._qemu: tuple[int, int] | None = qemu
        self._output = output

    @classmethod
    def take(cls, name: str, identity: str) -> Adoption:
        """Become the owner of guest `name`, which was looked up before. Raises `UsageError`: it has one, is not there,
        or cannot be read; `LostGuestError`: the name is another guest's by now.
        """
        check(rundir.find(name))
        directory = RunDirectory.adopt(name, identity)
        with contextlib.ExitStack() as taken:
            taken.callback(directory.release)
            try:
                _wait_fetched(directory)
                description = Description.read(directory.path)
                config = GuestConfig.from_json(saved_files.read(directory / rundir.CONFIG, MAX_CONFIG))
                version_of(saved_files.read(directory / rundir.MONITOR, MAX_CONFIG))
                qemu = locks.holder(directory / rundir.QEMU_LOCK)
                if qemu is None:
                    raise UsageError(f"guest {name!r} has just ended")
                taken.callback(os.close, qemu[1])
                ram_fd = _open_ram(directory, qemu[0], config.ram_size)
                taken.callback(os.close, ram_fd)
                output = _open_output(directory, qemu[0])
                if output is not None:
                    taken.callback(os.close, output)
                if locks.ended(qemu[1], 0):  # else the descriptors may be those of a process that has its number now
                    raise UsageError(f"guest {name!r} has just ended")
            except (OSError, ValueError, IndexError, ProtocolError) as error:
                raise UsageError(f"guest {name!r} cannot be taken over: {error}") from None
            taken.pop_all()
            return cls(directory, description, config, ram_fd, qemu, output)

    def qemu(self) -> Process:
        """The guest's QEMU; to be called once, in the event loop."""
        assert self._qemu is not None
        process, self._qemu = Process(*self._qemu), None
        return process

    def output(self) -> int | None:
        """A descriptor by which QEMU's output is read, if there is one; to be called once, and the caller's then."""
        fd, self._output = self._output, None
        return fd

    def close(self) -> None:
        """Give back what was not handed on."""
        if self._output is not None:
            os.close(self._output)
            self._output = None
        if self._qemu is not None:
            os.close(self._qemu[1])
            self._qemu = None

    async def settle(self, side: Supervisor) -> None:
        """End what the owner before us was amid: a guest that it had stopped, to hand it over, goes on."""
        marked, where = found(self.directory.path)
        if where:
            side.found(where)
            return  # it may run at another host, and no two of it may
        # Also of one that was not stopped by then: QEMU goes on with it, and stops it in the end.
        migrates = (await execute(side, "query-migrate")).get("status") in _MIGRATING
        if migrates and not await cancel(side, _CANCELLED):
            raise GuestError(
                f"QEMU of guest {self.directory.name!r} is in a migration that its former owner had begun, and did not "
                f"cancel it within {_CANCELLED:g} s: try again later"
            )
        if marked and (await execute(side, "query-status"))["status"] != "running":
            await execute(side, "cont")
        side.stays()


def _wait_fetched(directory: RunDirectory) -> None:
    """Wait until no RAM of the guest is to be fetched any more: until then its backend must be the one that knows, and
    QEMU does not let a guest go on at a source.

    Raises `GuestError`: some cannot be fetched any more; `UsageError`: it takes too long.
    """
    deadline = time.monotonic() + _FETCHED
    while fetching.fetching(directory / rundir.QMP):
        if time.monotonic() > deadline:
            raise UsageError(f"guest {directory.name!r} still fetches its RAM from where it was: try again later")
        time.sleep(_POLL)
    if fetching.status(directory / rundir.QMP) in fetching.CUT_OFF:
        raise GuestError(
            f"guest {directory.name!r} cannot go on: the other QEMU of its postcopy migration ended before all of its "
            f"RAM was fetched; `qemu-sdei stop {directory.name}` ends it"
        )


def check(guest: Running) -> None:
    """Raise `UsageError` unless `guest` can be adopted."""
    if guest.owned:
        who = f", process {guest.pid}" if guest.pid is not None else ""
        state = f" ({found})" if (found := stopped.of_guest(guest.path)) else ""
        raise UsageError(f"guest {guest.name!r} has an owner{who}: only a guest without one can be taken over{state}")


def _open_ram(directory: RunDirectory, qemu: int, size: int) -> int:
    """The guest's RAM, which has no name, by the descriptor that QEMU inherited."""
    number = int((directory / rundir.QEMU_LOCK).read_text().split()[0])
    fd = os.open(f"/proc/{qemu}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
    if os.fstat(fd).st_size != size:
        os.close(fd)
        raise ValueError(f"QEMU's descriptor {number} is not its RAM")
    return fd


def _open_output(directory: RunDirectory, qemu: int) -> int | None:
    """The pipe into which QEMU writes what it says, by the descriptor that it inherited; None: of an older version."""
    numbers = (directory / rundir.QEMU_LOCK).read_text().split()
    if len(numbers) < 2:
        return None
    fd = os.open(f"/proc/{qemu}/fd/{int(numbers[1])}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError(f"QEMU's descriptor {numbers[1]} is not its output")
    return fd


def end(guest: Running) -> None:
    """End a guest that has no owner, and leave nothing of it. Raises `UsageError`: it has one; `GuestError`."""
    check(guest)
    try:
        directory = RunDirectory.adopt(guest.name, guest.identity)
    except LostGuestError:
        return  # it has ended, and the one that has its name is not meant
    except UsageError:
        if not guest.path.exists():
            return  # it has just ended
        raise
    lock = directory / rundir.QEMU_LOCK
    backend = locks.holder(directory / rundir.BACKEND_LOCK)
    if not locks.end_holders(lock, signal.SIGTERM, _GRACE) and not locks.end_holders(lock):
        directory.release()
        raise GuestError(f"QEMU of guest {guest.name!r} does not end, even when it is killed")
    directory.remove()
    if backend is not None:
        # It sees that QEMU has gone, writes its trace to the end, and finds no directory to remove.
        if not locks.ended(backend[1], _GRACE):
            signal.pidfd_send_signal(backend[1], signal.SIGKILL)
            locks.ended(backend[1], _GRACE)
        os.close(backend[1])
