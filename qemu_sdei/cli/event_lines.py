"""What happens in a guest, one line each: records of the trace as sentences. Calls and frames are not among them, but
for EVENT_SIGNAL, by which a guest itself triggers an event.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from qemu_sdei.printable import printable

Record = dict[str, Any]

_CAUSES: Final = {
    "REGISTER": "registered",
    "ENABLE": "enabled",
    "DISABLE": "disabled",
    "UNREGISTER": "unregistered",
    "RELEASE": "released: no interrupt is bound to it any more",
    "DISPATCH": "handler entered",
    "COMPLETE": "handler completed",
    "PE_RESET": "unregistered: the vCPU went off, or starts anew",
    "RESET": "unregistered: the machine was reset",
}
_OUTCOMES: Final = {"pending": "it is pending", "merged": "merged with one that is pending"}
_ENABLED: Final = "enabled"
_COMMON: Final = frozenset(("n", "type", "vcpu", "time_ns", "counter", "at_ns", "at_error_ns", "pc", "event", "name"))
_UNREGISTER_PENDING: Final = "running, unregister pending"


class Line(NamedTuple):
    """A record, for people. Nothing in it is a character that a terminal obeys."""

    clock: str
    """Time of day, with microseconds."""
    vcpu: str
    event: str
    what: str

    def text(self) -> str:
        """As one line with columns."""
        return f"{self.clock}  {self.vcpu:<7}  {self.event:<18}  {self.what}".rstrip()


class Lines:
    """Makes the lines of one guest's records."""

    def __init__(self, names: Mapping[int, str], named: Callable[[int], str] | None = None) -> None:
        """`names`: of events, by number; it may grow. `named`: shows addresses; None: without symbols."""
        self.names = names
        self._named = named or (lambda pc: f"{pc:#x}")
        self._offset = time.time_ns() - time.monotonic_ns()

    def line(self, record: Record) -> Line | None:
        """The line of a record; None: it is none of an event, or is damaged."""
        try:
            what = self._what(record)
            if what is None:
                return None
            vcpu = record.get("vcpu")
            return Line(
                self._clock(record.get("at_ns", record.get("time_ns"))),
                "" if vcpu is None else f"vCPU {printable(vcpu, 8)}",
                self._event(record),
                printable(what, 400),
            )
        except (KeyError, TypeError, ValueError, OverflowError, OSError, AttributeError):
            return None  # a file may say anything

    def _clock(self, at_ns: object) -> str:
        if not isinstance(at_ns, int) or not at_ns:
            return " " * 15
        real = at_ns + self._offset
        return f"{time.strftime('%H:%M:%S', time.localtime(real // 10**9))}.{real % 10**9 // 1000:06}"

    def _event(self, record: Record) -> str:
        number = event_of(record)
        if number is None:
            return ""
        name = self.names.get(number, "")
        return f"{number:#x} {printable(name, 24)}".rstrip()

    def _what(self, record: Record) -> str | None:
        kind = record["type"]
        if kind == "transition":
            return _transition(record)
        if kind == "trigger":
            by = "triggered by a bound interrupt" if record.get("by") == "interrupt" else "triggered by the host"
            outcome = record.get("outcome")
            why = record.get("why")
            words = _OUTCOMES.get(outcome, str(outcome)) if isinstance(outcome, str) else ""
            return f"{by}: {words}" + (f": {why}" if why else "")
        if kind == "call":
            if record["function"] != "SDEI_EVENT_SIGNAL":
                return None
            result = record.get("result_name") or record.get("result")
            return "signalled by EVENT_SIGNAL" + ("" if result is None else f": {result}")
        if kind == "undelivered":
            return f"not delivered: {record.get('why')}"
        if kind == "power":
            return self._power(record)
        if kind in _OTHERS:
            return _OTHERS[kind](record)
        if kind in ("frame", "counted", "ftrace", "trace"):
            return None
        return f"{record.get('name') or kind}{_rest(record)}"

    def _power(self, record: Record) -> str:
        before = f"{record['from']} -> " if record.get("from") else ""
        entry = record.get("entry")
        return f"power: {before}{record['to']}" + (f", at {self._named(entry)}" if isinstance(entry, int) else "")


def event_of(record: Record) -> int | None:
    """The event that a record is about; None: it is about none."""
    number = record.get("event")
    if number is None and record.get("type") == "call":
        number = record.get("args", {}).get("event")
    return number if type(number) is int else None


def _transition(record: Record) -> str:
    cause, new = record["cause"], record["to"]
    if cause == "UNREGISTER" and new == _UNREGISTER_PENDING:
        return "unregister is pending: the handler still runs"
    words = _CAUSES.get(cause, str(cause))
    return f"{words}; it is {new} now" if cause == "COMPLETE" and new != _ENABLED else words


def _rest(record: Record) -> str:
    more = [f" {name}={value}" for name, value in record.items() if name not in _COMMON and value is not None]
    return "".join(more[:8])


_OTHERS: Final[dict[str, Callable[[Record], str]]] = {
    "boot": lambda record: f"boot {record.get('epoch', '?')}: the machine was reset",
    "kernel": lambda record: f"kernel {record.get('kernels', '?')} has begun",
    "backend": lambda record: f"backend {record.get('pid', '')} {str(record.get('what', '')).replace('-', ' ')}",
    "migration": lambda record: f"migration: {record.get('phase', '')} {record.get('text', '')}".rstrip(),
    "injection": lambda record: f"injection: {record.get('outcome', '')}",
    "ras": lambda record: f"hardware error of source {record.get('source', '')}: {record.get('outcome', '')}",
    "notification": lambda record: (
        f"{record.get('kind')} {record.get('outcome')}" + (f": {record['why']}" if record.get("why") else "")
    ),
    "reject": lambda record: f"rejected: {record.get('why', '')}",
    "unknown": lambda record: f"a call that nobody serves: {_hex(record.get('id', record.get('function')))}",
    "dropped": lambda record: f"{record.get('count')} records are missing here",
}


def _hex(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)
