"""Snapshots as QEMU has them: which disks of a guest take part, which snapshots they hold, and jobs on them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.errors import GuestError, GuestTimeoutError, UsageError
from qemu_sdei.migration.source import Side, execute
from qemu_sdei.vm.devices import SNAPSHOTS

_POLL: Final = 0.005
_LIMIT: Final = 120.0
_OVER: Final = frozenset(("concluded", "null"))
_NUMBERS: Final = itertools.count()


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a guest."""

    tag: str
    """Its name."""
    bytes: int
    """Size of RAM and devices in bytes, without the disks."""
    time: float
    """When it was saved, in seconds since 1970."""
    guest_ns: int
    """How long the guest had run, in ns of QEMU's virtual clock."""

    def to_json(self) -> dict[str, Any]:
        """All fields, as a dictionary for JSON."""
        return {"tag": self.tag, "bytes": self.bytes, "time": self.time, "guest_ns": self.guest_ns}


@dataclass(frozen=True)
class Disk:
    """A disk of the guest that can be written to."""

    device: str
    node: str
    file: str
    format: str
    snapshots: tuple[Snapshot, ...]

    @property
    def tags(self) -> frozenset[str]:
        """Of all its snapshots."""
        return frozenset(snapshot.tag for snapshot in self.snapshots)


@dataclass(frozen=True)
class Disks:
    """What a snapshot of a guest consists of."""

    all: tuple[Disk, ...]
    """All that can be written to; the first one holds RAM and devices too."""

    @classmethod
    async def of(cls, side: Side) -> Disks:
        """Those of the guest of `side`. Raises `UsageError`: it cannot have snapshots; the message says why."""
        found = []
        for entry in await execute(side, "query-block"):
            inserted = entry.get("inserted")
            if inserted and not inserted["ro"]:
                found.append(_disk(entry["device"] or entry.get("qdev", ""), inserted))
        for disk in found:
            if disk.format != "qcow2":
                raise UsageError(
                    f"disk {disk.file} is {disk.format}, and only what is in a qcow2 image can be in a snapshot: "
                    "convert it (qemu-img convert -O qcow2), or give it as FILE,snapshot=on or FILE,readonly=on"
                )
        if not found:
            raise UsageError(
                f"guest {side.name!r} has no place for a snapshot: start it with --snapshots FILE, which is made if it "
                "is not there, or give it a disk of format qcow2 (--drive FILE.qcow2)"
            )
        found.sort(key=lambda disk: disk.device != SNAPSHOTS)
        return cls(tuple(found))

    @property
    def vmstate(self) -> str:
        """Node that RAM and devices are written to."""
        return self.all[0].node

    @property
    def nodes(self) -> list[str]:
        """Nodes of all disks."""
        return [disk.node for disk in self.all]

    def holding(self, tag: str) -> list[str]:
        """Nodes of the disks that have a snapshot `tag`."""
        return [disk.node for disk in self.all if tag in disk.tags]

    def snapshots(self) -> list[Snapshot]:
        """Those with RAM and devices, oldest first."""
        return sorted((s for s in self.all[0].snapshots if s.bytes), key=lambda snapshot: snapshot.time)

    def find(self, tag: str) -> Snapshot | None:
        """The snapshot `tag`."""
        return next((snapshot for snapshot in self.snapshots() if snapshot.tag == tag), None)


def _disk(device: str, inserted: dict[str, Any]) -> Disk:
    snapshots = tuple(
        Snapshot(
            tag=str(entry["name"]),
            bytes=int(entry["vm-state-size"]),
            time=entry["date-sec"] + entry["date-nsec"] / 1e9,
            guest_ns=entry["vm-clock-sec"] * 1_000_000_000 + entry["vm-clock-nsec"],
        )
        for entry in inserted["image"].get("snapshots", ())
    )
    return Disk(device, inserted["node-name"], inserted["file"], inserted["drv"], snapshots)


async def run_job(side: Side, command: str, tag: str, nodes: Sequence[str], *, vmstate: str | None = None) -> None:
    """Run one of QEMU's `snapshot-*` jobs to its end.

    Raises:
        GuestError: it failed, with QEMU's words. `LostGuestError`: QEMU is gone.
    """
    job = f"qemu-sdei-{next(_NUMBERS)}"
    where = {} if vmstate is None else {"vmstate": vmstate}
    await execute(side, command, job_id=job, tag=tag, devices=list(nodes), **where)
    deadline = time.monotonic() + _LIMIT
    while True:
        (found,) = [entry for entry in await execute(side, "query-jobs") if entry["id"] == job] or [{}]
        if not found or found["status"] in _OVER:
            break
        if time.monotonic() > deadline:
            raise GuestTimeoutError(f"QEMU did not end its {command} within {_LIMIT:g} s")
        await asyncio.sleep(_POLL)
    with contextlib.suppress(GuestError):
        await execute(side, "job-dismiss", id=job)
    if found.get("error"):
        raise GuestError(f"QEMU's {command}: {found['error']}")
