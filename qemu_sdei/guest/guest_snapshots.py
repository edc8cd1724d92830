"""Saving a `Guest`, in a directory or as a snapshot: its methods for it, and what other processes ask of its owner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from qemu_sdei import paths
from qemu_sdei.errors import UsageError
from qemu_sdei.guest.supervisor_socket import Progress
from qemu_sdei.migration.options import Hold, Report, no_report
from qemu_sdei.saving import snapshots
from qemu_sdei.saving.snapshots import Snapshot

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest
    from qemu_sdei.guest.local_migration import Mover

T = TypeVar("T")
_TIMEOUT: Final = 300.0
_SAVE_TIMEOUT: Final = 120.0
_EXTRA: Final = 60.0
"""Seconds, beside the waits that have limits of their own."""


class Snapshooter:
    """Takes one guest's snapshots, in its event loop."""

    def __init__(self, guest: Guest, mover: Mover) -> None:
        self._guest = guest
        self._mover = mover

    def _note(self) -> dict[str, str]:
        return {"nonce": self._guest._nonce}

    async def listed(self) -> list[Snapshot]:
        """See `Guest.snapshots`."""
        return await snapshots.listed(self._guest._running())

    async def save(self, tag: str, report: Report) -> Snapshot:
        """See `Guest.snapshot`."""
        with self._mover.alone():
            return await snapshots.save(self._guest._running(), tag, self._note(), report)

    async def load(self, tag: str, report: Report) -> None:
        """See `Guest.load_snapshot`."""
        guest = self._guest
        with self._mover.alone():
            loaded = await snapshots.load(guest._running(), tag, self._note(), report)
        guest._running().know(loaded.note.get("nonce", guest._nonce))
        guest.is_now(guest._running().nonce)
        with guest.console_text.changed:
            guest.console_text.forget_panic()
            guest.console_text.changed.notify_all()

    async def delete(self, tag: str) -> None:
        """See `Guest.delete_snapshot`."""
        with self._mover.alone():
            await snapshots.delete(self._guest._running(), tag)

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

    _mover: Mover | None

    @abstractmethod
    def _call(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run `work` in the event loop and wait for it."""

    @abstractmethod
    def _running(self) -> Any:
        """The guest's supervisor. Raises `SdeiError`: it is not started."""

    def _snapshooter(self) -> Snapshooter:
        self._running()
        assert self._mover is not None
        return self._mover.snapshooter

    def save(
        self,
        path: str | Path,
        *,
        end: bool = False,
        hold: Hold | None = None,
        timeout: float = _SAVE_TIMEOUT,
        report: Report = no_report,
    ) -> int:
        """Write the running guest into the new directory `path`; it goes on, or ends with `end`. `Guest.saved` has it
        back. Returns the bytes written.

        Args:
            path: the directory to make.
            end: end the guest when it is saved.
            hold: save it when an event is in a given state.
            timeout: seconds that QEMU may take to write.
            report: is told of progress, in another thread.

        Raises:
            UsageError: the directory cannot be made. `GuestError`: it did not work, and the guest goes on.
        """
        self._running()
        assert self._mover is not None
        where = str(paths.absolute(path))
        wait = timeout + _EXTRA + (hold.timeout if hold is not None else 0)
        return self._call(self._mover.save(where, report, end=end, hold=hold, timeout=timeout), wait)

    def snapshot(self, tag: str, *, report: Report = no_report) -> Snapshot:
        """Save the running guest, with firmware and disks, as the snapshot `tag` in its own qcow2 image; it goes on.

        Raises:
            UsageError: it has no such image (`GuestOptions.snapshots`), or a disk that cannot be in a snapshot, or the
            tag is taken. `GuestError`: it did not work, and the guest goes on.
        """
        return self._call(self._snapshooter().save(tag, report), _TIMEOUT)

    def load_snapshot(self, tag: str, *, report: Report = no_report) -> None:
        """Have the guest be as it was when the snapshot `tag` was saved; what has happened since is forgotten.

        Events that are pending or handled now are forgotten too: who waits for one is told so. Those that are injected
        from now on are for the guest of the snapshot.

        Raises:
            UsageError: there is no such snapshot. `GuestError`: it did not work, and the guest goes on as it was;
            `LostGuestError`: it does not, and was ended.
        """
        self._call(self._snapshooter().load(tag, report), _TIMEOUT)

    def snapshots(self) -> list[Snapshot]:
        """Its snapshots, oldest first. Raises `UsageError`: it cannot have any; the message says why."""
        return self._call(self._snapshooter().listed(), _TIMEOUT)

    def delete_snapshot(self, tag: str) -> None:
        """Forget the snapshot `tag`. Raises `UsageError`: there is none; `GuestError`."""
        self._call(self._snapshooter().delete(tag), _TIMEOUT)
