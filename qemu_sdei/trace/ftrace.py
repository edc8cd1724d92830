"""The guest's own ftrace on the time axis of our trace.

From the clock of ftrace to the guest's counter it goes by `guest_clock.py`, and from there to the host's clock by
`align.py`; each line says how far off it may be. A file may be of any size: it is read twice, line by line, and what is
kept of it are bounds.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from qemu_sdei.errors import UsageError
from qemu_sdei.trace.align import Alignment
from qemu_sdei.trace.ftrace_text import Line, Lost, lines_of, lost, opened, parsed
from qemu_sdei.trace.guest_clock import PROBE_NAMES, Calls, GuestClock
from qemu_sdei.trace.reading import Reading, open_trace

_SECOND: Final = 1_000_000_000
_WHERE: Final = "docs/howto/linux-ftrace.md says how to make one"


class Ftrace:
    """The lines of one ftrace on the time axis of a trace."""

    def __init__(self, path: Path, alignment: Alignment, calls: Calls) -> None:
        """`alignment` and `calls` have learned all records of the trace.

        Raises:
            UsageError: `path` cannot be read, is no text of ftrace, or nothing in it ties it to the trace.
        """
        self._path = path
        self._alignment = alignment
        self._clock = GuestClock(alignment.counter_hz, calls)
        self.lines = 0
        """Lines that were understood."""
        self.skipped = 0
        """Lines that were not: of another form, damaged, or without a time."""
        for line in self._read():
            if line is None:
                self.skipped += 1
            elif isinstance(line, Line):
                self.lines += 1
                if line.unit_ns == _SECOND:
                    raise UsageError(
                        f"{path}: its times are no nanoseconds (trace_clock counter or uptime): "
                        "echo local >/sys/kernel/tracing/trace_clock before it is made"
                    )
                self._clock.learn(line)
        if not self.lines:
            raise UsageError(f"{path} has no line of ftrace (/sys/kernel/tracing/trace): {_WHERE}")
        if not self._clock.tied:
            raise UsageError(f"{path} has nothing that ties it to the guest's counter: {_WHERE}")

    def _read(self) -> Iterator[Line | Lost | None]:
        """What its lines are; None for each that is not understood."""
        with opened(self._path) as file:
            for number, text in enumerate(lines_of(file), 1):
                if not text.startswith(b"#") and text.strip():
                    yield parsed(number, text) or lost(number, text)

    def records(self) -> Iterator[dict[str, Any]]:
        """Each line as a record of type `ftrace`, without those that were only there to tie it to the trace. Raises
        `UsageError`: it cannot be read any more.
        """
        at = error = 0
        for line in self._read():
            if isinstance(line, Lost):
                yield _dropped(line, at, error)
            elif line is not None and line.event not in PROBE_NAMES:
                record = self._record(line)
                at, error = record["at_ns"], record["at_error_ns"]
                yield record

    def told(self) -> Iterator[dict[str, Any]]:
        """The same, after a note that says what they are."""
        records = self.records()
        first = next(records, None)
        if first is None:
            return
        common = {name: first[name] for name in ("n", "time_ns", "at_ns", "at_error_ns")}
        note = {**common, "type": "note", "vcpu": None, "counter": None, "name": "ftrace", "lines": self.lines}
        yield {**note, "not_understood": self.skipped, "clock_error_ns": self._clock.error_ns}
        yield first
        yield from records

    def _record(self, line: Line) -> dict[str, Any]:
        first, last = self._clock.counter(line.guest_ns)
        begin, end = self._alignment.at(first), self._alignment.at(last)
        if begin is None or end is None:  # our trace has no counter at all
            raise UsageError("the trace has no counters, so an ftrace of its guest has no place in it")
        at = (begin.at_ns + end.at_ns) // 2
        error = max(at - begin.at_ns + begin.error_ns, end.at_ns + end.error_ns - at)
        return {
            "n": line.number,
            "type": "ftrace",
            "vcpu": line.vcpu,
            "time_ns": None,
            "counter": (first + last) // 2,
            "at_ns": at,
            "at_error_ns": max(error, 0),
            "task": _text(line.task),
            "pid": line.pid,
            "flags": _text(line.flags),
            "event": _text(line.event),
            "text": _text(line.text),
            "guest_ns": line.guest_ns,
        }


def open_with_ftrace(path: Path, text: Path) -> Reading:
    """The trace in `path`, as `open_trace` gives it, with the lines of the guest's ftrace in `text` put in.

    Before the first of these stands a `note` of the name `ftrace`: how many lines there are, how many were not
    understood, and how far the guest's clock may be off the guest's counter. `path` is read twice.

    Raises:
        UsageError, ProtocolError: as `open_trace` and `Ftrace`; UsageError also from the records.
    """
    with open_trace(path) as first:
        alignment, calls = Alignment(first.meta.counter_hz), Calls()
        for record in first.records():
            alignment.learn(record)
            calls.learn(record)
    lines = Ftrace(text, alignment, calls)
    again = open_trace(path)
    return Reading(again.meta, lambda: merged(again.records(), lines.told()), again.close)


def _dropped(gap: Lost, at_ns: int, error_ns: int) -> dict[str, Any]:
    """The record of lines that are missing; they stand where the line before them does."""
    head = {"n": gap.number, "type": "dropped", "vcpu": gap.vcpu, "time_ns": None, "counter": None}
    why = "lines of the guest's ftrace, whose buffer was full"
    return {**head, "at_ns": at_ns, "at_error_ns": error_ns, "count": gap.events, "why": why}


def merged(*traces: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Records of several traces of one guest, each in its own order, put together by their times."""
    return heapq.merge(*traces, key=lambda record: record["at_ns"])


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")
