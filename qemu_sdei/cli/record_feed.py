"""Where a watcher gets records of what happens from: the guest's backend, asked again and again."""

from __future__ import annotations

from typing import Any, Final

from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.sdei.transitions import STATE_NAMES

Record = dict[str, Any]

LIMIT: Final = 1000
"""Records of one question."""
_MOVES: Final = frozenset(("deliver", "complete", "transition"))


class BackendFeed:
    """The newest records that the backend keeps (`trace` of the control protocol)."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client
        self._last = -1
        """Time of the newest record that was seen."""

    def poll(self) -> list[Record]:
        """What is new, oldest first. Raises `SdeiError`: the backend does not answer."""
        records = [record for record in self._client.trace(LIMIT) if isinstance(record, dict)]
        new = [record for record in records if _time(record) > self._last]
        self._last = max((_time(record) for record in new), default=self._last)
        return [as_record(record) for record in new]

    def close(self) -> None:
        """Nothing to give back: the connection is somebody else's."""


def _time(record: Record) -> int:
    value = record.get("time_ns")
    return value if type(value) is int else 0


def as_record(told: Record) -> Record:
    """What a backend tells by its control socket, as a record of the trace."""
    kind, now = told.get("type"), _time(told)
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
