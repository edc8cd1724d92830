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
from qemu_sdei.saving.saved import SaveOptions
from qemu_sdei.saving.snapshots import Snapshot
from qemu_sdei.vm.event_loop import EventLoop

_TIMEOUT: Final = 300.0
_EXTRA: Final = 60.0
"""Seconds, beside the waits that have limits of their own."""


class Alone(Protocol):
    """Whoever sees to it that one thing at a time has the guest paused."""

    def alone(self) -> AbstractContextManager[None]:
        """Nothing else does, meanwhile. Raises `UsageError`."""


class Moves(Alone, Protocol):
    """What has a guest paused, and writes it down."""

    snapshooter: Snapshooter

    async def save(self, path: str, report: Report, options: SaveOptions) -> int:
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
        timeout: float = SaveOptions.timeout,
        report: Report = no_report,
        ram_apart: bool = False,
    ) -> int:
        """Write the running guest into a new directory, and return the number of bytes written. `Guest.saved` reads it.

        Args:
            path: the directory; it must not exist.
            end: True: end the guest when it is saved; False: it runs on.
            hold: save the guest when an event is in this state; None: now.
            timeout: seconds that QEMU may take to write.
            report: called with the progress, in another thread.
            ram_apart: True: write RAM into a file of its own, without pages that are zero. Such a guest starts sooner,
                and takes less memory. Versions before 0.2 cannot read it.

        Raises:
            UsageError: the directory cannot be made.
            GuestError: the guest was not saved, and runs on.
        """
        where = str(paths.absolute(path))
        wait = timeout + _EXTRA + (hold.timeout if hold is not None else 0)
        options = SaveOptions(end, hold, timeout, ram_apart)
        return self.loop.call(self._moves().save(where, report, options), wait)

    def snapshot(self, tag: str, *, report: Report = no_report) -> Snapshot:
        """Save the running guest in its qcow2 image, with firmware and disks, as the snapshot `tag`. The guest runs on.
        `report` is called with the progress.

        Raises:
            UsageError: the guest has no such image (`GuestOptions.snapshots`), a disk that cannot have snapshots, or
                this tag already.
            GuestError: the snapshot was not saved, and the guest runs on.
        """
        return self.loop.call(self._moves().snapshooter.save(tag, report), _TIMEOUT)

    def load_snapshot(self, tag: str, *, report: Report = no_report) -> None:
        """Return the guest to the state of the snapshot `tag`. What has happened since is lost.

        Events that are pending or handled now are dropped, and a caller that waits for one gets `NotDeliveredError`.
        Events that are injected from now on go to the guest of the snapshot. `report` is called with the progress.

        Raises:
            UsageError: there is no such snapshot.
            GuestError: it was not loaded, and the guest runs on as it was.
            LostGuestError: it was not loaded, and the guest was ended.
        """
        self.loop.call(self._moves().snapshooter.load(tag, report), _TIMEOUT)

    def snapshots(self) -> list[Snapshot]:
        """The guest's snapshots, oldest first.

        Raises:
            UsageError: the guest cannot have snapshots; the message says why.
        """
        return self.loop.call(self._moves().snapshooter.listed(), _TIMEOUT)

    def delete_snapshot(self, tag: str) -> None:
        """Delete the snapshot `tag`.

        Raises:
            UsageError: there is no such snapshot.
            GuestError: QEMU could not delete it.
        """
        self.loop.call(self._moves().snapshooter.delete(tag), _TIMEOUT)
