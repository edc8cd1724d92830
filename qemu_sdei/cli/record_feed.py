"""Where watchers get records of what happens from: the guest's trace ring; else its backend, by its socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from qemu_sdei import rundir
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.sdei.transitions import STATE_NAMES
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.trace.ring_follower import RingFollower

Record = dict[str, Any]

LIMIT: Final = 1000
"""Records of one question to a backend."""
_MOVES: Final = frozenset(("deliver", "complete", "transition"))


class RecordFeed:
    """What is new in one guest, wherever it is: each time from its run directory of then."""

    def __init__(self, client: ControlClient) -> None:
        """`client`: the guest's; where it migrates on this host, its path follows."""
        self._client = client
        self._directory: Path | None = None
        self._ring: RingFollower | None = None
        self._last = -1
        """Time of the newest record that was seen."""
        self.moves = 0
        """How often another source was begun with."""

    def poll(self) -> list[Record]:
        """What is new, oldest first; the first time, what is kept of the time before.

        Raises `SdeiError`: there is no ring, and the backend does not answer.
        """
        directory = self._client.path.parent
        if directory != self._directory:
            self.close()
            self._directory = directory
            self.moves += 1
            try:
                self._ring = RingFollower(directory / rundir.TRACE)
                # Should it have brought records from where it was, they were seen there.
                return self._new(self._ring.poll())
            except (UsageError, ProtocolError):
                self._ring = None  # of an older version, which has none, or of a newer one
        return self._new(self._of_backend()) if self._ring is None else self._noted(self._ring.poll())

    def _new(self, records: list[Record]) -> list[Record]:
        """Those that are newer than all that was seen."""
        return self._noted([record for record in records if _time(record) > self._last])

    def _noted(self, records: list[Record]) -> list[Record]:
        self._last = max((_time(record) for record in records), default=self._last)
        return records

    def event_names(self) -> dict[int, str]:
        """Names of the guest's events, after a `poll`. Raises `SdeiError`: the backend must be asked, and does not
        answer.
        """
        events = self.meta.events if self.meta is not None else ()
        return {entry["event"]: str(entry["name"]) for entry in events or self._client.status()["events"]}

    @property
    def meta(self) -> TraceMeta | None:
        """Of which guest the records are; None: its backend does not say."""
        return None if self._ring is None else self._ring.meta

    def _of_backend(self) -> list[Record]:
        return [as_record(record) for record in self._client.trace(LIMIT) if isinstance(record, dict)]

    def close(self) -> None:
        """Let go of the ring."""
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.close()


def _time(record: Record) -> int:
    value = record.get("at_ns", record.get("time_ns"))
    return value if type(value) is int else 0


def as_record(told: Record) -> Record:
    """What a backend tells by its socket, as a record of the trace: one of an older version tells less."""
    kind, now = str(told.get("type")), _time(told)
    if "vcpu" in told:
        return {**told, "type": kind}
    record = {"n": 0, "type": kind, "vcpu": told.get("pe"), "time_ns": now, "at_ns": now, "at_error_ns": 0}
    record |= {name: value for name, value in told.items() if name not in ("pe", "type", "time_ns")}
    if kind in _MOVES:
        record |= {"type": "transition", "from": _state(told.get("from")), "to": _state(told.get("to"))}
    elif kind == "power":
        record |= {"from": None, "to": record.pop("state", None)}
    elif kind == "reset":
        record |= {"type": "boot", "vcpu": None}
    elif kind == "kernel":
        record["kernels"] = record.pop("kernel", None)
    elif kind not in ("unknown", "reject"):
        record |= {"type": "note", "name": kind}
    return record


def _state(value: object) -> str:
    return STATE_NAMES.get(value, str(value)) if isinstance(value, int) else str(value)
