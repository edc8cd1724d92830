"""Which records somebody wants to see: `--filter` and `--since` of `qemu-sdei trace`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from qemu_sdei.errors import UsageError
from qemu_sdei.trace.decode import Record

Filter = Callable[[Record], bool]
_EVENT_TYPES: Final = frozenset(("transition", "trigger", "undelivered", "injection"))
TYPES: Final = (
    *("call", "frame", "transition", "trigger", "undelivered", "power", "counted", "kernel", "boot", "backend"),
    *("migration", "injection", "ras", "notification", "misbehaved", "firmware", "priorities"),
    *("reject", "note", "dropped", "ftrace"),
)
_UNITS: Final = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "m": 60.0, "h": 3600.0}
_FORMS: Final = "call, event or another type; or vcpu=N, function=NAME, event=N, result=CODE, type=TYPE"


def parse_filters(texts: Sequence[str]) -> Filter:
    """A record passes if it passes each of `texts`: `call`, `event`, `TYPE`, `vcpu=0,1`, `function=*SIGNAL`,
    `event=0x100`, `result=DENIED`; of what is separated by commas one must fit.

    Raises:
        UsageError: one cannot be understood.
    """
    filters = [_parse(text) for text in texts]
    return lambda record: all(wanted(record) for wanted in filters)


def _parse(text: str) -> Filter:
    name, equals, value = text.partition("=")
    if not equals:
        if name == "event":
            return lambda record: record["type"] in _EVENT_TYPES
        if name not in TYPES:
            raise UsageError(f"--filter {text!r} is not known: give {_FORMS}")
        return lambda record: record["type"] == name
    values = value.split(",")
    if name in ("vcpu", "event"):
        numbers = _numbers(text, values)
        return lambda record: _number_of(record, name) in numbers
    if name == "type":
        if unknown := [value for value in values if value not in TYPES]:
            raise UsageError(f"--filter {text}: there is no type {unknown[0]!r}; there are {', '.join(TYPES)}")
        return lambda record: record["type"] in values
    patterns = [value.upper() for value in values]
    if name == "function":
        return lambda record: _fits(record.get("function"), patterns, prefix="SDEI_")
    if name == "result":
        return lambda record: _fits(record.get("result_name"), patterns) or str(record.get("result")) in values
    raise UsageError(f"--filter {text!r} is not known: give {_FORMS}")


def _number_of(record: Record, name: str) -> Any:
    found = record.get(name)
    if found is None and name == "event":
        arguments = record.get("args")
        found = arguments.get("event") if isinstance(arguments, dict) else None
    return found


def _numbers(text: str, values: Iterable[str]) -> set[int]:
    try:
        return {int(value, 0) for value in values}
    except ValueError:
        raise UsageError(f"--filter {text}: give numbers, such as 0 or 0x100") from None


def _fits(value: object, patterns: list[str], prefix: str = "") -> bool:
    if not isinstance(value, str):
        return False
    value = value.upper()
    return any(fnmatchcase(value, pattern) or fnmatchcase(value, prefix + pattern) for pattern in patterns)


def parse_since(text: str) -> tuple[str, float]:
    """("seconds", S) for a time back from the newest record, such as 5s or 200ms; ("number", N) for `#N`; ("boot", 0)
    for the newest boot.

    Raises:
        UsageError: it is none of these.
    """
    if text == "boot":
        return "boot", 0.0
    if text.startswith("#") and text[1:].isascii() and text[1:].isdigit():
        return "number", float(int(text[1:]))
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(|s|ms|us|µs|m|h)", text)
    if match is None:
        raise UsageError(f"--since {text!r} is not known: give a time back (5s, 200ms, 2m), `boot`, or #N for a record")
    return "seconds", float(match[1]) * _UNITS[match[2]]


def since(records: Sequence[Record], wanted: tuple[str, float]) -> Sequence[Record]:
    """Those of `records` that are wanted."""
    kind, value = wanted
    if kind == "number":
        return [record for record in records if record["n"] >= value]
    if kind == "boot":
        starts = [index for index, record in enumerate(records) if record["type"] == "boot"]
        # The frame that was the reset stands before its record.
        return records[max(starts[-1] - 1, 0) :] if starts else records
    if not records:
        return records
    limit = max(record["at_ns"] for record in records) - value * 1e9
    return [record for record in records if record["at_ns"] >= limit]
