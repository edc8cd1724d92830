"""Records as text, one line each, in the columns of `trace-cmd report`:

    [001]     4.268123: call:        SDEI_EVENT_ENABLE event=0x0/software -> SUCCESS
    [001]     4.268123: transition:  event=0x0/software registered -> enabled by ENABLE (DEN0054 5.1.3)

vCPU, seconds since the trace began, kind, and what it says as `key=value`; numbers of registers are hexadecimal, states
and results have their names. Whatever a guest puts into it, a line stays one line and holds nothing that a terminal
obeys. Colours are the caller's: `mood` says how a record is to be taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from qemu_sdei.printable import printable
from qemu_sdei.trace.arguments import is_refusal

DOUBTFUL_NS: Final = 1_000_000
"""ns. A time that may be off by more than this says so."""
_MAX_LINE: Final = 2048
_WORD: Final = (1 << 64) - 1
_NOBODY: Final = "[  -]"
_MAX_FIELDS: Final = 32

Symbol = Callable[[int], str]
"""Gives the name of an address, such as `el1_irq+0x7c`."""
Record = Mapping[str, Any]


def mood(record: Record) -> str:
    """How a record is to be taken: "bad" (something went wrong), "refused" (a call that returned an error), "event"
    (a handler begins or ends, an event is triggered), "quiet" (of little interest), or "plain".
    """
    kind = record["type"]
    if kind in ("reject", "dropped", "unknown", "misbehaved") or record.get("kind") in (
        "exception",
        "fault",
        "bad-answer",
    ):
        return "bad"
    if kind == "undelivered" or record.get("outcome") in ("refused", "failed"):
        return "refused"
    if kind in ("call", "frame") and is_refusal(record):
        return "refused" if record.get("result_name") else "plain"
    if kind in ("trigger", "injection", "ras", "notification") or record.get("cause") in ("DISPATCH", "COMPLETE"):
        return "event"
    return "quiet" if kind in ("counted", "frame", "ftrace") else "plain"


class Columns:
    """Makes lines of the records of one trace."""

    def __init__(
        self,
        events: Iterable[Mapping[str, Any]] = (),
        origin_ns: int = 0,
        symbol: Symbol | None = None,
        *,
        places: bool = True,
    ) -> None:
        """`events`: with `event` and `name`, as a trace's first line has them; `origin_ns`: the time that is 0;
        `symbol`: names addresses of the guest's code, which are hexadecimal without it; `places`: say where a vCPU was.
        """
        self._names = {event["event"]: str(event["name"]) for event in events}
        self._origin = origin_ns
        self._symbol = symbol
        self._places = places

    def words(self, record: Record) -> str:
        """What a record says, without when and where. It is foreign text: not made safe for anything yet."""
        write = _WRITERS.get(record["type"], _fields)
        try:
            return write(self, record)
        except (LookupError, TypeError, ValueError, AttributeError):  # of a file, with other fields than its kind has
            return _fields(self, record)

    def line(self, record: Record) -> str:
        """A record as one line, without its end."""
        error = record.get("at_error_ns", 0)
        doubt = f"  (+-{_duration(error)})" if error > DOUBTFUL_NS else ""
        text = f"{self._head(record)} {record['type'] + ':':<12} {self.words(record)}{doubt}"
        return printable(text.rstrip(), _MAX_LINE)

    def _head(self, record: Record) -> str:
        vcpu, at = record["vcpu"], record["at_ns"] - self._origin
        sign = "-" if at < 0 else ""
        micros = abs(at) // 1000
        clock = f"{sign}{micros // 1_000_000}.{micros % 1_000_000:06d}"
        return f"{_NOBODY if vcpu is None else f'[{vcpu:03d}]'} {clock:>12}:"

    def _address(self, address: Any) -> str:
        if type(address) is not int:
            return str(address)
        return f"{address:#x}" if self._symbol is None else self._symbol(address)

    def _place(self, record: Record, name: str = "pc") -> list[str]:
        if not self._places:
            return []
        symbol = record.get(f"{name}_symbol")
        return [f"{name}={symbol or self._address(record.get(name))}"]

    def _event(self, record: Record) -> str:
        event = record.get("event")
        name = self._names.get(event, "") if type(event) is int else ""
        return f"event={_number(event)}{'/' + name if name else ''}"

    # ---- of each kind ------------------------------------------------------------------------------------------------

    def _call(self, record: Record) -> str:
        args = record["args"]
        words = [record["function"]]
        for name, value in list(args.items())[:_MAX_FIELDS] if isinstance(args, Mapping) else ():
            if name == "event" and self._names.get(value):
                words.append(self._event({"event": value}))
            elif name in ("entry", "address"):
                words.append(f"{name}={self._address(value)}")
            else:
                words.append(f"{name}={_number(value)}")
        words += [_outcome(record), *self._place(record)]
        return " ".join(words)

    def _frame(self, record: Record) -> str:
        words = [record["kind"]]
        words += [f"{name}={_number(record[name])}" for name in ("intid", "vector", "esr") if name in record]
        if "function" in record:
            words += [record["function"]]
        words += [_outcome(record), *self._place(record), f"EL{record['el']}"]
        return " ".join(words)

    def _transition(self, record: Record) -> str:
        clause = f" ({record['clause']})" if record["clause"] else ""
        return f"{self._event(record)} {record['from']} -> {record['to']} by {record['cause']}{clause}"

    def _trigger(self, record: Record) -> str:
        why = f": {record['why']}" if record.get("why") else ""
        return f"{self._event(record)} by={record['by']} -> {record['outcome']}{why}"

    def _undelivered(self, record: Record) -> str:
        return f"{self._event(record)} reason={record['reason']}: {record['why']}"

    def _power(self, record: Record) -> str:
        return f"{record['from'] or '?'} -> {record['to']}"

    def _counted(self, record: Record) -> str:
        span = record["at_ns"] - record["since_ns"]
        return f"{record['function']} count={record['count']} in {_duration(max(span, 0))}"

    def _kernel(self, record: Record) -> str:
        return f"another kernel has begun without a reset, kernels={record['kernels']}"

    def _boot(self, record: Record) -> str:
        return f"the machine was reset, epoch={record.get('epoch', '?')}"

    def _injection(self, record: Record) -> str:
        ticket = f" ticket={record['ticket']}" if record.get("ticket") else ""
        event = f"{self._event(record)} " if "event" in record else ""
        why = f": {record['why']}" if record.get("why") else ""
        return f"{event}-> {record['outcome']}{why}{ticket}"

    def _ras(self, record: Record) -> str:
        from qemu_sdei.ras.severity import NAMES  # few traces have one

        number = record["severity"]
        severity = NAMES[number].lower() if number in NAMES else f"severity {_number(number)}"
        why = f": {record['why']}" if record.get("why") else ""
        told = f"{severity}, {record['bytes']} bytes, told by {record['notify']}"
        return f"error of source {record['source']!r} ({told}) -> {record['outcome']}{why}"

    def _notification(self, record: Record) -> str:
        names = ("intid", "address", "elr", "spsr")
        where = "".join(f" {name}={_number(record[name])}" for name in names if name in record)
        why = f": {record['why']}" if record.get("why") else ""
        return f"{record['kind']}{where} -> {record['outcome']}{why}"

    def _migration(self, record: Record) -> str:
        return f"{record['phase']}: {record['text']}"

    def _misbehaved(self, record: Record) -> str:
        return f"firmware profile {record['profile']} rule {record['rule']}: {record['does']}"

    def _firmware(self, record: Record) -> str:
        summary = f": {record['summary']}" if record.get("summary") else ""
        return f"firmware profile {record['profile']}, rules={record.get('rules', '?')}{summary}"

    def _priorities(self, record: Record) -> str:
        where = {"cpu-on": "CPU_ON", "wake": "a wake-up", "kernel": "another kernel's begin"}.get(
            record["at"], record["at"]
        )
        shown = ", ".join(_number(priority) for priority in record["active"])
        state = f"priority {shown} is active" if shown else "no priority is active"
        words = f"at {where} {state} (ICC_AP1R0_EL1 {_number(record['ap1r0'])})"
        if record["then"] is None:
            return words
        words += ": an interrupt was acknowledged and never ended"
        if record["then"] == "kept":
            return f"{words} -> left so, the CPU takes no interrupt of this priority or below"
        return f"{words} -> the firmware ends it"

    def _reject(self, record: Record) -> str:
        more = {name: value for name, value in record.items() if name != "why"}
        return f"{record['why']} {_fields(self, more)}"

    def _unknown(self, record: Record) -> str:
        return f"nobody serves id={_number(record['id'])}"

    def _dropped(self, record: Record) -> str:
        why = f": {record['why']}" if record.get("why") else ""
        return f"{record['count']} records are missing here{why}"

    def _ftrace(self, record: Record) -> str:
        flags = f" {record['flags']}" if record["flags"] else ""
        return f"{record['task']}-{record['pid']}{flags} {record['event']}: {record['text']}"


_COMMON: Final = frozenset(("n", "type", "vcpu", "time_ns", "counter", "at_ns", "at_error_ns"))


def _fields(_: Columns, record: Record) -> str:
    """Of a kind that has no writer, and of a record that has not the fields of its kind."""
    shown = [(name, value) for name, value in record.items() if name not in _COMMON and value is not None]
    return " ".join(f"{name}={value}" for name, value in shown[:_MAX_FIELDS])


_WRITERS: Final[dict[str, Callable[[Columns, Record], str]]] = {
    "call": Columns._call,
    "frame": Columns._frame,
    "transition": Columns._transition,
    "trigger": Columns._trigger,
    "undelivered": Columns._undelivered,
    "power": Columns._power,
    "counted": Columns._counted,
    "kernel": Columns._kernel,
    "boot": Columns._boot,
    "injection": Columns._injection,
    "ras": Columns._ras,
    "notification": Columns._notification,
    "migration": Columns._migration,
    "misbehaved": Columns._misbehaved,
    "firmware": Columns._firmware,
    "priorities": Columns._priorities,
    "reject": Columns._reject,
    "unknown": Columns._unknown,
    "dropped": Columns._dropped,
    "ftrace": Columns._ftrace,
}


def _outcome(record: Record) -> str:
    """What came of a call or a frame."""
    if not record["answered"]:
        return "-> (no answer)"
    result, name = record.get("result"), record.get("result_name")
    if result is None:
        return f"-> {record['then']}"
    said = f"{name} ({result})" if name and result else name or f"{result & _WORD:#x}"
    return f"-> {said}" + ("" if record["then"] == "returns" else f", {record['then']}")


def _number(value: Any) -> str:
    return f"{value:#x}" if type(value) is int else str(value)


def _duration(ns: int) -> str:
    """A time as people say it."""
    for unit, name in ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")):
        if ns >= unit:
            return f"{ns / unit:.3g} {name}" if ns < 1000 * unit else f"{ns // unit} {name}"
    return f"{ns} ns"
