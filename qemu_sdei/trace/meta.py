"""Of which guest a trace is, and what its readers must know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor import layout

VERSION: Final = 1
"""Of the records' form: docs/reference/trace.md."""
COUNTER_HZ: Final = 62_500_000
"""QEMU's counter, if nobody said otherwise."""
_MAX_EVENTS: Final = 4096


@dataclass(frozen=True)
class TraceMeta:
    """What a trace says first.

    Attributes:
        guest: its name.
        vcpus: how many.
        client_el: exception level at which its kernel runs: 1 or 2.
        monitor: version of the frame window of its monitor.
        counter_hz: of the guest's counter.
        started_ns: host's monotonic clock when the backend began, nanoseconds.
        realtime_ns: host's real time at that moment, nanoseconds since 1970.
        events: number, name, type, priority of each event.
        program: version of the program that wrote it.
        slots: of the ring; None: it does not come from one.
    """

    guest: str = ""
    vcpus: int = 1
    client_el: int = 1
    monitor: int = layout.VERSION
    counter_hz: int = COUNTER_HZ
    started_ns: int = 0
    realtime_ns: int = 0
    events: tuple[dict[str, Any], ...] = field(default=())
    program: str = ""
    slots: int | None = None

    def document(self) -> dict[str, Any]:
        """As the first line of a trace in JSON lines."""
        return {
            "type": "trace",
            "version": VERSION,
            "program": self.program,
            "guest": self.guest,
            "vcpus": self.vcpus,
            "client_el": self.client_el,
            "monitor": self.monitor,
            "counter_hz": self.counter_hz,
            "started_ns": self.started_ns,
            "realtime_ns": self.realtime_ns,
            "events": [dict(event) for event in self.events],
            "slots": self.slots,
        }

    @classmethod
    def of(cls, document: object) -> TraceMeta:
        """Of what `document` gave, from outside.

        Raises:
            ProtocolError: it is something else, or of a version that this program does not know.
        """
        if not isinstance(document, dict) or document.get("type") != "trace":
            raise ProtocolError("it does not begin as a trace does")
        version = document.get("version")
        if version != VERSION:
            raise ProtocolError(f"it is a trace of version {str(version)[:20]}; this program reads version {VERSION}")
        events = document.get("events", [])
        if not isinstance(events, list) or not all(_is_event(event) for event in events[:_MAX_EVENTS]):
            raise ProtocolError("its list of events is damaged")
        return cls(
            guest=_text(document, "guest"),
            vcpus=_number(document, "vcpus", 1, layout.MAX_CPUS),
            client_el=_number(document, "client_el", 1, 2),
            monitor=_number(document, "monitor", 0, 1 << 16),
            counter_hz=_number(document, "counter_hz", 1, 1 << 40),
            started_ns=_number(document, "started_ns", 0, 1 << 63),
            realtime_ns=_number(document, "realtime_ns", 0, 1 << 63),
            events=tuple(events[:_MAX_EVENTS]),
            program=_text(document, "program"),
            slots=None if document.get("slots") is None else _number(document, "slots", 1, 1 << 32),
        )

    def event_name(self, number: int) -> str:
        """Name of an event; "" if it has none."""
        return next((str(event["name"]) for event in self.events if event["event"] == number), "")


def _is_event(event: object) -> bool:
    return isinstance(event, dict) and type(event.get("event")) is int and isinstance(event.get("name"), str)


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str) or len(value) > 256:
        raise ProtocolError(f"its {name} is damaged")
    return value


def _number(document: dict[str, Any], name: str, low: int, high: int) -> int:
    value = document.get(name)
    if type(value) is not int or not low <= value <= high:
        raise ProtocolError(f"its {name} is damaged")
    return value
