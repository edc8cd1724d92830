"""Saving a `Guest`, in a directory or as a snapshot: its methods for it, and what other processes ask of its owner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

from qemu_sdei import paths
from qemu_sdei.errors import UsageError
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.supervisor_socket import Progress
from qemu_sdei.migration.options import Hold, Report, no_report
from qemu_sdei.saving import snapshots
from qemu_sdei.saving.snapshots import Snapshot
from qemu_sdei.vm.event_loop import EventLoop

_TIMEOUT: Final = 300.0
_SAVE_TIMEOUT: Final = 120.0
_EXTRA: Final = 60.0
"""Seconds, beside the waits that have limits of their own."""


class Alone(Protocol):
    """Whoever sees to it that one thing at a time has the guest paused."""

    def alone(self) -> AbstractContextManager[None]:
        """Nothing else does, meanwhile. Raises `UsageError`."""


class Moves(Alone, Protocol):
    """What has a guest paused, and writes it down."""

    snapshooter: Snapshooter

    async def save(
        self,
        path: str,
        report: Report,
        *,
        end: bool = False,
        hold: Hold | None = None,
        timeout: float = 120.0,
        ram_apart: bool = False,
    ) -> int:
        """See `saved.save`."""


class Snapshooter:
    """Takes one guest's snapshots, in its event loop."""

    def __init__(self, record: GuestRecord, alone: Alone) -> None:
        self._record = record
        self._alone = alone

    def _note(self) -> dict[str, str]:
        return {"nonce": self._record.nonce}

    async def listed(self) -> list[Snapshot]:
        """See `Guest.snapshots`."""
        return await snapshots.listed(self._record.supervisor)

    async def save(self, tag: str, report: Report) -> Snapshot:
        """See `Guest.snapshot`."""
        with self._alone.alone():
            return await snapshots.save(self._record.supervisor, tag, self._note(), report)

    async def load(self, tag: str, report: Report) -> None:
        """See `Guest.load_snapshot`."""
        record = self._record
        with self._alone.alone():
            loaded = await snapshots.load(record.supervisor, tag, self._note(), report)
        record.supervisor.know(loaded.note.get("nonce", record.nonce))
        record.is_now(record.supervisor.nonce)
        with record.console.changed:
            record.console.forget_panic()
            record.console.changed.notify_all()

    async def delete(self, tag: str) -> None:
        """See `Guest.delete_snapshot`."""
        with self._alone.alone():
            await snapshots.delete(self._record.supervisor, tag)

    async def requested(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """A request of another process: {do: save|load|list|delete, tag}."""
        do, tag = request.get("do"), request.get("tag")

        def report(step: Any) -> None:
            progress(step.to_json())

        if do == "list":
            return {"snapshots": [asdict(snapshot) for snapshot in await self.listed()]}
        tag = snapshots.check_tag(tag)
        if do == "save":
            return {"snapshot": asdict(await self.save(tag, report))}
        if do == "load":
            await self.load(tag, report)
        elif do == "delete":
            await self.delete(tag)
        else:
            raise UsageError("a snapshot can be saved, loaded, listed and deleted")
        return {"tag": tag}


class GuestSnapshots(ABC):
    """A `Guest` in files."""

    loop: EventLoop

    @abstractmethod
    def _moves(self) -> Moves:
        """What has the guest paused. Raises `SdeiError`: it is not started."""

    def save(
        self,
        path: str | Path,
        *,
        end: bool = False,
        hold: Hold | None = None,
        timeout: float = _SAVE_TIMEOUT,
        report: Report = no_report,
        ram_apart: bool = False,
    ) -> int:
        """Write the running guest into the new directory `path`; it goes on, or ends with `end`. `Guest.saved` has it
        back. Returns the bytes written.

        Args:
            path: the directory to make.
            end: end the guest when it is saved.
            hold: save it when an event is in a given state.
            timeout: seconds that QEMU may take to write.
            report: is told of progress, in another thread.
            ram_apart: write RAM into a file of its own, of the pages that are not zero: such a guest comes back sooner,
                and takes less memory. Versions of this program before 0.2 cannot read it.

        Raises:
            UsageError: the directory cannot be made. `GuestError`: it did not work, and the guest goes on.
        """
        where = str(paths.absolute(path))
        wait = timeout + _EXTRA + (hold.timeout if hold is not None else 0)
        return self.loop.call(
            self._moves().save(where, report, end=end, hold=hold, timeout=timeout, ram_apart=ram_apart), wait
        )

    def snapshot(self, tag: str, *, report: Report = no_report) -> Snapshot:
        """Save the running guest, with firmware and disks, as the snapshot `tag` in its own qcow2 image; it goes on.

        Raises:
            UsageError: it has no such image (`GuestOptions.snapshots`), or a disk that cannot be in a snapshot, or the
            tag is taken. `GuestError`: it did not work, and the guest goes on.
        """
        return self.loop.call(self._moves().snapshooter.save(tag, report), _TIMEOUT)

    def load_snapshot(self, tag: str, *, report: Report = no_report) -> None:
        """Have the guest be as it was when the snapshot `tag` was saved; what has happened since is forgotten.

        Events that are pending or handled now are forgotten too: who waits for one is told so. Those that are injected
        from now on are for the guest of the snapshot.

        Raises:
            UsageError: there is no such snapshot. `GuestError`: it did not work, and the guest goes on as it was;
            `LostGuestError`: it does not, and was ended.
        """
        self.loop.call(self._moves().snapshooter.load(tag, report), _TIMEOUT)

    def snapshots(self) -> list[Snapshot]:
        """Its snapshots, oldest first. Raises `UsageError`: it cannot have any; the message says why."""
        return self.loop.call(self._moves().snapshooter.listed(), _TIMEOUT)

    def delete_snapshot(self, tag: str) -> None:
        """Forget the snapshot `tag`. Raises `UsageError`: there is none; `GuestError`."""
        self.loop.call(self._moves().snapshooter.delete(tag), _TIMEOUT)
