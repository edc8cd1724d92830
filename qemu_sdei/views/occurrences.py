"""Counts of what happened in a trace: calls by function and result, events by what became of them, records by type."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from qemu_sdei.views.moments import Moment, integer, word

_MAX_NAMES: Final = 1000
_MAX_REASONS: Final = 10
_OTHERS: Final = "(others)"
_OPERATIONS: Final = "→ operations"
"""The call waits for micro-operations; how it ended is in a later record."""


@dataclass
class EventCounts:
    """What became of one event, on all vCPUs."""

    triggers: Counter[str] = field(default_factory=Counter)
    """By "host", "interrupt" and "signal"; "merged" and "refused" are of those."""
    delivered: int = 0
    completed: int = 0
    waited: Counter[str] = field(default_factory=Counter)
    """By the reason for which it was not delivered at once."""


class Occurrences:
    """Counts them; names that a hostile guest or file makes up without end are counted together."""

    def __init__(self) -> None:
        self.types: Counter[str] = Counter()
        self.functions: dict[str, Counter[str]] = {}
        """Function to results: a code's name, "value", or where the vCPU went."""
        self.events: dict[int, EventCounts] = {}
        self.missing: Counter[str] = Counter()
        """Records that are not in the trace, by what is said of why."""

    def add(self, moment: Moment) -> None:
        """Take the next record."""
        kind, record = moment.type, moment.record
        known = kind in self.types or len(self.types) < _MAX_NAMES
        self.types[kind if known else _OTHERS] += 1
        if kind == "call":
            self._call(word(record, "function") or "?", _result(moment), 1)
            accepted = integer(record, "result") == 0 or word(record, "then") == "handler"
            if accepted and word(record, "function") == "SDEI_EVENT_SIGNAL" and moment.event is not None:
                self._event(moment.event).triggers["signal"] += 1
        elif kind == "frame" and word(record, "function"):
            self._goes_on(word(record, "function"), _result(moment))
        elif kind == "counted":
            self._call(word(record, "function") or "?", "value", max(0, integer(record, "count") or 0))
        elif kind == "dropped":
            why = word(record, "why") or ("older than the trace begins" if self.types.total() == 1 else "")
            self.missing[why if len(self.missing) < _MAX_REASONS else ""] += max(1, integer(record, "count") or 0)
        elif moment.event is not None:
            counts = self._event(moment.event)
            if kind == "trigger":
                counts.triggers[word(record, "by")[:16] or "host"] += 1
                if word(record, "outcome") in ("merged", "refused"):
                    counts.triggers[word(record, "outcome")] += 1
            elif kind == "undelivered":
                counts.waited[word(record, "reason")[:32] or "?"] += 1
            elif kind == "transition":
                counts.delivered += word(record, "cause") == "DISPATCH"
                counts.completed += word(record, "cause") == "COMPLETE"

    def _call(self, function: str, result: str, count: int) -> None:
        if function not in self.functions and len(self.functions) >= _MAX_NAMES:
            function = _OTHERS
        results = self.functions.setdefault(function, Counter())
        results[result if result in results or len(results) < _MAX_NAMES else _OTHERS] += count

    def _goes_on(self, function: str, result: str) -> None:
        """A call that had the monitor do something for it has come so far."""
        results = self.functions.get(function)
        if results is not None and result != _OPERATIONS and results[_OPERATIONS] > 0:
            results[_OPERATIONS] -= 1
            if not results[_OPERATIONS]:
                del results[_OPERATIONS]
            self._call(function, result, 1)

    def _event(self, event: int) -> EventCounts:
        if event not in self.events and len(self.events) >= _MAX_NAMES:
            event = -1
        return self.events.setdefault(event, EventCounts())


def _result(moment: Moment) -> str:
    name = word(moment.record, "result_name")
    if name:
        return name
    if integer(moment.record, "result") is not None:
        return "value"
    return f"→ {word(moment.record, 'then') or '?'}"
