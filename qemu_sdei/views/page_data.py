"""What a page says of a trace: read once from begin to end, of any length, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from qemu_sdei.trace.columns import Columns
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.views.lanes import Lanes
from qemu_sdei.views.latencies import Latencies
from qemu_sdei.views.moments import Moment, Moments, Record, SharedEvents, integer, word
from qemu_sdei.views.occurrences import Occurrences
from qemu_sdei.views.page_text import hexadecimal
from qemu_sdei.views.record_fields import fields_of
from qemu_sdei.views.refused import Refusals, is_refusal
from qemu_sdei.views.state_diagram import Visits

RECORDS: Final = 100_000
"""Records that a page holds if nobody says otherwise: the newest ones."""
MAX_RECORDS: Final = 500_000
"""Browsers place no element further down than some 17 million pixels."""


class PageData:
    """All that is counted, and the newest records.

    Attributes:
        meta: what the trace says of its guest.
        total: how many records the trace has.
        newest: those that are on the page.
        last_at: nanoseconds from the first record to the last.
        lanes, latencies, occurrences, refusals, visits: what all records come to.
    """

    def __init__(self, meta: TraceMeta, records: Iterable[object], limit: int = RECORDS) -> None:
        """Read `records` (dicts as docs/reference/trace.md has them; what is none is skipped)."""
        self.meta = meta
        shared = SharedEvents(meta.events)
        self.names = {event["event"]: str(event["name"]) for event in meta.events}
        self.lanes = Lanes(shared=shared, length=limit)
        self.latencies = Latencies(meta)
        self.occurrences = Occurrences()
        self.refusals = Refusals(shared)
        self.visits = Visits()
        self.newest: deque[Moment] = deque(maxlen=limit)
        self.total = 0
        self.last_at = 0
        self._moments = Moments()
        parts = (self.lanes, self.latencies, self.occurrences, self.refusals, self.visits)
        for record in records:
            if not isinstance(record, Mapping):
                continue
            moment = self._moments.moment(record)
            self.total += 1
            self.newest.append(moment)
            self.last_at = max(self.last_at, moment.at)
            for part in parts:
                part.add(moment)
        self.latencies.finish()

    @property
    def first_at(self) -> int:
        """Of the records on the page the earliest time; nanoseconds since the trace's first record."""
        return min((moment.at for moment in self.newest), default=0)

    def event_name(self, event: int) -> str:
        """Number and name of an event. The name is foreign text."""
        if event < 0:
            return "(others)"
        name = self.names.get(event, "")
        return f"{hexadecimal(event)} {name}".rstrip()

    def document(self) -> dict[str, Any]:
        """What the page's script is given. Records are columns; what many of them share is there once."""
        zero = self._moments.first_ns
        wall = None
        if zero is not None and self.meta.realtime_ns:
            wall = (self.meta.realtime_ns + zero - self.meta.started_ns) // 1_000_000
        return {
            "guest": self.meta.guest,
            "vcpus": self.meta.vcpus,
            "wall_ms": wall,
            "total": self.total,
            "last": self.last_at,
            "events": {str(number): name for number, name in self.names.items()},
            "lanes": self.lanes.document(self.first_at),
            "critical": [event["event"] for event in self.meta.events if event.get("priority") == "critical"],
            "arrows": self.visits.document(),
            **_columns(self.newest, Columns(self.meta.events, places=False)),
        }


class _Table:
    """Things that are there once, by their number."""

    def __init__(self) -> None:
        self.things: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, key: Any, thing: Any) -> int:
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self.things)
            self.things.append(thing)
        return found


def _columns(moments: Iterable[Moment], words: Columns) -> dict[str, Any]:
    """The columns: `n` and `at` as differences from the one before; `vcpu` -1: none; `type`, `pc`, `next` and `detail`
    as places in `types`, `pcs` and `details`. A detail is [line, event or -1, refused 0 or 1, name, value, name, ...].
    """
    types, pcs, details = _Table(), _Table(), _Table()
    columns: dict[str, list[int | None]] = {
        name: [] for name in ("n", "at", "error", "vcpu", "type", "pc", "next", "counter", "detail")
    }
    last_n = last_at = 0
    for moment in moments:
        record = moment.record
        fields = fields_of(record)
        event = -1 if moment.event is None else moment.event
        detail = (words.words(record), event, int(is_refusal(moment)), *(part for pair in fields for part in pair))
        columns["n"].append(moment.n - last_n)
        columns["at"].append(moment.at - last_at)
        columns["error"].append(moment.error)
        columns["vcpu"].append(-1 if moment.vcpu is None else moment.vcpu)
        columns["type"].append(types.number(moment.type, moment.type))
        columns["pc"].append(_place(pcs, record, "pc"))
        columns["next"].append(_place(pcs, record, "next_pc"))
        columns["counter"].append(integer(record, "counter"))
        columns["detail"].append(details.number(detail, detail))
        last_n, last_at = moment.n, moment.at
    return {"records": columns, "types": types.things, "pcs": pcs.things, "details": details.things}


def _place(pcs: _Table, record: Record, name: str) -> int:
    """The number of an address of the guest's code, with its symbol if there is one; -1: the record has none."""
    address, symbol = integer(record, name), word(record, f"{name}_symbol")
    return -1 if address is None else pcs.number((address, symbol), f"{hexadecimal(address)} {symbol}".rstrip())
