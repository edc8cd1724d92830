"""How a guest's counter lies on the clock of its ftrace.

Linux on arm64 has no trace clock that shows the counter itself (`trace_clock` = `counter` only counts events). But all
clocks in nanoseconds come from it: they run at its pace, and only a suspend moves them against it. So the difference,
counter minus trace clock, is constant from one suspend to the next, and two kinds of lines bound it:

- kprobes around the kernel's own reading of the counter: the probe on the function's return has the value, that on its
  entry was before it (`PROBES` has the two lines to write to `kprobe_events`);
- markers around a call that our trace has too: EVENT_STATUS of an event number that nothing else uses
  (`SdeiClient.mark_trace` does that where there are no kprobes).

What all of them allow is the error; where they contradict each other there was a suspend, or another kernel, and a line
between two such spans may belong to either. A suspend that is shorter than the error is not noticed.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.trace.ftrace_text import Line

BEFORE: Final = "qemu_sdei_before"
AFTER: Final = "qemu_sdei_after"
PROBES: Final = (
    f"p:{BEFORE} arch_counter_read",
    f"r:{AFTER} arch_counter_read counter=$retval",
)
"""Lines for `kprobe_events`; the two are then below `events/kprobes/`."""
PROBE_NAMES: Final = (BEFORE.encode(), AFTER.encode())
MARKS: Final = range(0x7D5E_0000, 0x7D5F_0000)
"""Event numbers that markers name."""
_MAX_MARKS: Final = 4096
_MAX_SPANS: Final = 4096
_SECOND: Final = 1_000_000_000
_COUNTER: Final = re.compile(rb"counter=(0x[0-9a-fA-F]{1,16}|\d{1,20})\b")
_MARK: Final = re.compile(rb"qemu-sdei (before|after) event=0x([0-9a-f]{8})\b")


class Calls:
    """Of our trace, what the markers of an ftrace lie around."""

    def __init__(self) -> None:
        self._counters: dict[int, tuple[int, int]] = {}

    def learn(self, record: Mapping[str, Any]) -> None:
        """Take in a record of our trace."""
        if record["type"] != "call" or type(counter := record.get("counter")) is not int:
            return
        args = record.get("args")
        event = args.get("event") if isinstance(args, Mapping) else None
        if type(event) is int and event in MARKS and len(self._counters) < _MAX_MARKS:
            first, last = self._counters.get(event, (counter, counter))
            self._counters[event] = min(first, counter), max(last, counter)

    def between(self, event: int) -> tuple[int, int] | None:
        """Counters of the first and the last call with this event number; None: there was none."""
        return self._counters.get(event)


@dataclass
class _Span:
    """From `first` to `last` of the trace clock, counter (in ns) minus clock is from `low` to `high`."""

    first: int
    last: int
    low: int
    high: int


class GuestClock:
    """How the guest's counter lies on its trace clock."""

    def __init__(self, counter_hz: int, calls: Calls) -> None:
        self._hz = counter_hz
        self._tick = -(-_SECOND // counter_hz)
        self._calls = calls
        self._spans: list[_Span] = []
        self._entered: dict[int, int] = {}
        self._marked: dict[int, int] = {}

    @property
    def error_ns(self) -> int:
        """How far the clock may be off the counter, in either direction, where it is best."""
        return max(0, min(span.high - span.low for span in self._spans) // 2) if self._spans else 0

    @property
    def tied(self) -> bool:
        """Whether anything is known."""
        return bool(self._spans)

    def learn(self, line: Line) -> None:
        """Take in a line that may tell something."""
        if line.event == PROBE_NAMES[0]:
            self._entered[line.vcpu] = line.guest_ns - line.unit_ns
        elif line.event == PROBE_NAMES[1]:
            found = _COUNTER.match(line.text[line.text.rfind(b"counter=") :])
            entered = self._entered.pop(line.vcpu, None)
            if found is not None and entered is not None:
                counter = int(found[1], 0)
                self._bound(entered, line.guest_ns + line.unit_ns, counter, counter)
        elif (mark := _MARK.search(line.text)) is not None:
            event = int(mark[2], 16)
            if mark[1] == b"before":
                if len(self._marked) < _MAX_MARKS:
                    self._marked[event] = line.guest_ns - line.unit_ns
            elif (begun := self._marked.pop(event, None)) is not None and (seen := self._calls.between(event)):
                self._bound(begun, line.guest_ns + line.unit_ns, *seen)

    def _bound(self, begun: int, ended: int, first: int, last: int) -> None:
        """Between two times of the clock the counter went from before `first` to behind `last`."""
        low = last * _SECOND // self._hz - ended
        high = first * _SECOND // self._hz + self._tick - begun
        if low > high:
            return  # it tells nothing: the clock was set in between
        newest = self._spans[-1] if self._spans else None
        if newest is not None and low <= newest.high and high >= newest.low:
            newest.low, newest.high = max(low, newest.low), min(high, newest.high)
            newest.last = max(newest.last, ended)
        elif newest is not None and len(self._spans) >= _MAX_SPANS:  # of a file that is made to have them
            newest.low, newest.high = min(low, newest.low), max(high, newest.high)
            newest.last = max(newest.last, ended)
        else:
            self._spans.append(_Span(begun, ended, low, high))

    def counter(self, guest_ns: int) -> tuple[int, int]:
        """The least and the greatest value of the counter at a time of the clock, as a line has it.

        All times are rounded, or all are cut: how far that moves two of them apart is in the bounds already.
        """
        behind = bisect_right(self._spans, guest_ns, key=lambda span: span.first)
        near = self._spans[max(behind - 1, 0)]
        others = self._spans[behind : behind + 1] if behind and guest_ns > near.last else []
        low, high = (min(s.low for s in (near, *others)), max(s.high for s in (near, *others)))
        first, last = guest_ns + low, guest_ns + high
        return max(first, 0) * self._hz // _SECOND, max(last, 0) * self._hz // _SECOND
