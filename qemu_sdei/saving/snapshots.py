"""Snapshots of a running guest in a qcow2 image of its own (QEMU's savevm): what `Guest.snapshot` and the like do.

The firmware's state lies in guest RAM meanwhile (`backend/control/snapshot_state.py`), so it is in the image with all
the rest. The vCPUs stand still from before the state document is written until QEMU has saved, or loaded, everything.

Before a snapshot is loaded, the guest as it is becomes one too: should what was loaded turn out to be no good, that one
is loaded, and the guest goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from qemu_sdei import rundir as files
from qemu_sdei.errors import GuestError, LostGuestError, NotDeliveredError, SdeiError, UsageError
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.options import Report, Step
from qemu_sdei.migration.source import Side, Source, execute
from qemu_sdei.saving.snapshot_jobs import Disks, Snapshot, run_job

UNDO: Final = "qemu-sdei-undo"
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")
_BACK: Final = 10.0
"""Seconds that a backend has to come back in."""
_RETRY: Final = 0.02
_TIMEOUT: Final = 120.0

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """What came with a snapshot."""

    tag: str
    note: dict[str, str]
    """What the guest's owner had it written down with."""
    running: bool
    """Whether the guest goes on."""


def check_tag(tag: object) -> str:
    """`tag` if it can be a snapshot's. Raises `UsageError`."""
    if not isinstance(tag, str) or _TAG.fullmatch(tag) is None or tag == UNDO:
        raise UsageError(
            f"snapshot tag {tag!r} cannot be used: 1 to 63 of A-Z a-z 0-9 . _ - are allowed, no . or - at the start, "
            f"and not {UNDO}"
        )
    return tag


async def listed(side: Side) -> list[Snapshot]:
    """The snapshots of a guest, oldest first. Raises `UsageError`: it has no place for any."""
    return [snapshot for snapshot in (await Disks.of(side)).snapshots() if snapshot.tag != UNDO]


async def save(side: Side, tag: str, note: dict[str, str], report: Report) -> Snapshot:
    """Save the guest of `side` as the snapshot `tag`; it goes on.

    Raises:
        UsageError: it cannot be. `GuestError`: it did not work, nothing is left of it, and the guest goes on.
    """
    check_tag(tag)
    disks = await Disks.of(side)
    if disks.find(tag):
        raise UsageError(f"there is a snapshot {tag!r} already: delete it first, or choose another tag")

    async def work(visit: _Visit) -> Snapshot:
        report(Step("snapshot"))
        await visit.save(disks, tag, note)
        found = (await Disks.of(side)).find(tag)
        if found is None:
            raise GuestError("QEMU has not written it")
        return found

    try:
        return await _finished(_visit(side, "saved", report, work))
    except asyncio.CancelledError:
        with contextlib.suppress(SdeiError):
            await run_job(side, "snapshot-delete", tag, disks.nodes)
        raise


async def delete(side: Side, tag: str) -> None:
    """Forget the snapshot `tag`. Raises `UsageError`: there is none; `GuestError`."""
    check_tag(tag)
    disks = await Disks.of(side)
    if not disks.find(tag):
        raise _unknown(tag, disks)
    await _finished(run_job(side, "snapshot-delete", tag, disks.holding(tag)))


async def load(side: Side, tag: str, note: dict[str, str], report: Report) -> Loaded:
    """Have the guest of `side` be as it was when the snapshot `tag` was saved.

    Args:
        note: the owner's, for the snapshot of the guest as it is now.

    Raises:
        UsageError: it cannot be. `GuestError`: it did not work, and the guest runs on as it was. `LostGuestError`: it
        does not, and was ended.
    """
    check_tag(tag)
    disks = await Disks.of(side)
    if not disks.find(tag):
        raise _unknown(tag, disks)
    if (await execute(side, "query-status"))["status"] != "running":
        # See `_Visit.undo`: one load may follow another only if the vCPUs ran in between.
        raise UsageError("the guest does not run: a snapshot is loaded into one that does (QMP `cont`)")
    without = [disk for disk in disks.all if tag not in disk.tags]
    if without:
        raise UsageError(f"disk {without[0].file} has no snapshot {tag!r}: it was not the guest's when that was saved")

    async def work(visit: _Visit) -> Loaded:
        if disks.holding(UNDO):
            await run_job(side, "snapshot-delete", UNDO, disks.holding(UNDO))
        report(Step("snapshot"))
        await visit.save(disks, UNDO, note)
        try:
            try:
                report(Step("load"))
                await run_job(side, "snapshot-load", tag, disks.nodes, vmstate=disks.vmstate)
                found = await visit.take_up()
            except BaseException:
                await visit.undo(disks)
                raise
        finally:
            with contextlib.suppress(SdeiError):
                await run_job(side, "snapshot-delete", UNDO, disks.nodes)
        return Loaded(tag, found, visit.running)

    return await _finished(_visit(side, "loaded", report, work))


def _unknown(tag: str, disks: Disks) -> UsageError:
    tags = ", ".join(snapshot.tag for snapshot in disks.snapshots() if snapshot.tag != UNDO)
    return UsageError(f"the guest has no snapshot {tag!r}; it has {tags or 'none'}")


async def _finished(work: Coroutine[Any, Any, T]) -> T:
    """What comes of `work`, which is done to its end even when we are cancelled: QEMU cannot stop halfway."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(BaseException):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # seen: it is told to nobody any more
        raise


async def _visit(side: Side, what: str, report: Report, work: Any) -> Any:
    """Have the guest stand still, do `work`, and let it go on."""
    link = await BackendLink.open(side.path / files.CONTROL)
    visit = _Visit(side, link, report)
    try:
        try:
            await visit.stop()
            return await work(visit)
        finally:
            await visit.go_on()
    except SdeiError as error:
        if visit.lost or not await _lives(side):
            raise (
                error if isinstance(error, LostGuestError) else LostGuestError(f"the guest has ended: {error}")
            ) from None
        raise GuestError(f"no snapshot was {what}, and the guest runs on as it was: {error}") from None


async def _lives(side: Side) -> bool:
    try:
        await execute(side, "query-status")
    except LostGuestError:
        return False
    return True


class _Visit:
    """The guest while it stands still."""

    def __init__(self, side: Side, link: BackendLink, report: Report) -> None:
        self.side = side
        self.running = False
        """Whether its vCPUs ran."""
        self._link = link
        self._leaving = Source(side, link, None, report, _TIMEOUT)
        self.lost = False
        """It cannot go on, and was ended."""

    async def stop(self) -> None:
        await execute(
            self.side,
            "migrate-set-capabilities",
            # QEMU would leave RAM out of the snapshot by the first, and refuses to save by the others.
            capabilities=[
                {"capability": name, "state": False} for name in ("x-ignore-shared", "multifd", "postcopy-ram")
            ],
        )
        self.running, _ = await self._leaving.pause()
        with contextlib.suppress(OSError):
            (self.side.path / files.STATE).unlink()

    async def save(self, disks: Disks, tag: str, note: dict[str, str]) -> None:
        await self._link.request("keep", note=note)
        try:
            await run_job(self.side, "snapshot-save", tag, disks.nodes, vmstate=disks.vmstate)
        finally:
            with contextlib.suppress(LostGuestError):
                await self._link.request("forget")

    async def take_up(self) -> dict[str, str]:
        """Have the backend go on with the document that has come into RAM. Returns the note beside it."""
        try:
            found: dict[str, str] = (await self._link.request("take-up"))["note"]
        finally:
            with contextlib.suppress(LostGuestError):
                await self._link.request("forget")
        return found

    async def undo(self, disks: Disks) -> None:
        """Load the guest as it was. Raises `LostGuestError`: that does not work either, and it was ended."""
        try:
            if not await self._answers():
                await self._have_another_backend()
            # QEMU 7.2 crashes where a machine is loaded twice and did not run in between: each of its flash devices
            # waits for that once for each load, and takes the second for the first (pflash_cfi01.c). It runs for some
            # microseconds here; RAM and disks are loaded again anyhow, and the firmware answers nothing.
            await asyncio.gather(execute(self.side, "cont"), execute(self.side, "stop"))
            await run_job(self.side, "snapshot-load", UNDO, disks.nodes, vmstate=disks.vmstate)
            await self.take_up()
        except SdeiError as error:
            self.lost = True
            with contextlib.suppress(SdeiError):
                await execute(self.side, "quit")
            raise LostGuestError(f"the guest is lost: a snapshot was loaded and cannot be undone: {error}") from None

    async def _answers(self) -> bool:
        try:
            await self._link.request("hello")
        except LostGuestError:
            return False
        return True

    async def _have_another_backend(self) -> None:
        """The backend has died: wait for its successor, and hold that one still.

        What it makes of its journal is of no account, because the vCPUs stand still, and RAM is about to be loaded.
        """
        self._link.close()
        self.side.stays()
        deadline = time.monotonic() + _BACK
        while True:
            try:
                self._link = await BackendLink.open(self.side.path / files.CONTROL)
                await self._link.request("hello")
                break
            except LostGuestError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_RETRY)
        self.side.leaves()
        with contextlib.suppress(NotDeliveredError):
            await self._link.request("freeze", drain=False)

    async def go_on(self) -> None:
        if not self.lost:
            self._link.close()
            await self._leaving.resume()


__all__ = ["UNDO", "Loaded", "Snapshot", "check_tag", "delete", "listed", "load", "save"]
