"""What lasts on each vCPU: handlers and their nesting, pending events, power and masks, as spans of time.

A span is `[start, end, what, ...]` in nanoseconds since the trace's first record; `start` null: from before it, `end`
null: to beyond it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, Final

from qemu_sdei.views.moments import Moment, argument, integer, vcpu_of_affinity, word

_MAX_DEPTH: Final = 8
"""Handlers inside each other that are kept: the specification allows two (DEN0054 4.3.2)."""
_MAX_PENDING: Final = 1 << 14
_CLEARS: Final = frozenset(("REGISTER", "UNREGISTER", "RELEASE", "PE_RESET", "RESET"))
"""Causes of transitions that drop what is pending (`sdei/transitions.py`: Latch.CLEAR)."""
_SIGNAL: Final = "SDEI_EVENT_SIGNAL"
_MASK: Final = "SDEI_PE_MASK"
_UNMASK: Final = "SDEI_PE_UNMASK"


@dataclass(slots=True)
class Handler:
    """One run of a handler."""

    event: int
    depth: int
    start: int | None
    start_n: int
    asked: int | None = None
    """When the event became pending."""
    end: int | None = None
    how: str = ""
    """How it ended: "complete", or what ended it otherwise."""

    def span(self) -> list[Any]:
        """As the page has it."""
        return [self.start, self.end, self.event, self.depth, self.asked, self.start_n, self.how]


@dataclass(slots=True)
class Lane:
    """One vCPU."""

    length: int
    handlers: deque[Handler] = field(init=False)
    pending: deque[list[Any]] = field(init=False)
    states: deque[list[Any]] = field(init=False)
    """Power states but "on", and "masked"."""
    running: list[Handler] = field(default_factory=list)
    state: tuple[int | None, str] | None = None
    calls: int = 0
    entries: int = 0
    in_handlers: int = 0
    """Nanoseconds of handlers that have ended."""

    def __post_init__(self) -> None:
        self.handlers = deque(maxlen=self.length)
        self.pending = deque(maxlen=self.length)
        self.states = deque(maxlen=self.length)

    def be(self, state: str, at: int) -> None:
        """The vCPU is in `state` from `at` on; "": on, and not masked as far as is known."""
        if self.state is not None:
            if self.state[1] == state:
                return
            if self.state[1]:
                self.states.append([self.state[0], at, self.state[1]])
        self.state = (at, state)


class Lanes:
    """Follows a trace, and keeps the newest `length` spans of each kind for each vCPU."""

    def __init__(self, *, shared: Container[int] = frozenset(), length: int = 100_000) -> None:
        """`shared`: numbers of shared events, which wait for any vCPU."""
        self._shared = shared
        self._length = length
        self.lanes: dict[int | None, Lane] = {}
        """By vCPU; None: what no vCPU has, such as a shared event that is pending."""
        self._pending: dict[tuple[int, int | None], int] = {}

    def lane(self, vcpu: int | None) -> Lane:
        """The lane of a vCPU."""
        found = self.lanes.get(vcpu)
        if found is None:
            found = self.lanes[vcpu] = Lane(self._length)
        return found

    def add(self, moment: Moment) -> None:
        """Take the next record."""
        kind = moment.type
        if kind == "call":
            self._call(moment)
        elif kind == "frame":
            self.lane(moment.vcpu).entries += 1
        elif kind == "transition":
            self._transition(moment)
        elif kind == "undelivered" or (kind == "trigger" and word(moment.record, "outcome") == "pending"):
            if moment.event is not None:
                self._pend(moment, moment.event, moment.vcpu)
        elif kind == "power":
            self._power(moment)
        elif kind == "boot":
            self._boot(moment)

    def _call(self, moment: Moment) -> None:
        lane = self.lane(moment.vcpu)
        lane.calls += 1
        lane.entries += 1
        function = word(moment.record, "function")
        result = integer(moment.record, "result")
        then = word(moment.record, "then")
        if function == _SIGNAL and moment.event is not None:
            target = vcpu_of_affinity(argument(moment.record, "target") or 0)
            if result == 0 or then == "handler":
                self._pend(moment, moment.event, target)
        elif function == _MASK and result is not None and result >= 0:
            lane.be("masked", moment.at)
        elif function == _UNMASK and (result == 0 or then == "handler"):
            lane.be("", moment.at)

    def _power(self, moment: Moment) -> None:
        lane = self.lane(moment.vcpu)
        before, now = word(moment.record, "from"), word(moment.record, "to")
        if lane.state is None:
            # Only one that is off can be started.
            before = before or ("off" if now == "on-pending" else "on")
            lane.state = None if before == "on" else (None, before)
        # A vCPU comes up masked (DEN0054 6.5.1).
        lane.be("masked" if now == "on" else now or "?", moment.at)

    def _boot(self, moment: Moment) -> None:
        for lane in self.lanes.values():
            for handler in lane.running:
                self._end(lane, handler, moment, "reset")
            lane.running.clear()
            lane.state = None if lane.state is None else (moment.at, "")
        for event, vcpu in list(self._pending):
            self._settle(event, vcpu, moment.at)

    # ---- events ------------------------------------------------------------------------------------------------------

    def _key(self, event: int, vcpu: int | None) -> tuple[int, int | None]:
        return event, None if event in self._shared else vcpu

    def _pend(self, moment: Moment, event: int, vcpu: int | None) -> None:
        key = self._key(event, vcpu)
        if key not in self._pending and len(self._pending) < _MAX_PENDING:
            self._pending[key] = moment.at

    def _settle(self, event: int, vcpu: int | None, at: int) -> int | None:
        """It is pending no more: since when it was."""
        key = self._key(event, vcpu)
        if key not in self._pending and (event, None) in self._pending:
            key = (event, None)
        since = self._pending.pop(key, None)
        if since is not None:
            self.lane(key[1]).pending.append([since, at, event])
        return since

    def _transition(self, moment: Moment) -> None:
        event, cause = moment.event, word(moment.record, "cause")
        if event is None:
            return
        lane = self.lane(moment.vcpu)
        if cause == "DISPATCH":
            since = self._settle(event, moment.vcpu, moment.at)
            if len(lane.running) >= _MAX_DEPTH:
                lane.running.pop(0)
            handler = Handler(event, len(lane.running), moment.at, moment.n, since)
            lane.running.append(handler)
            lane.handlers.append(handler)
            return
        if cause in _CLEARS:
            self._settle(event, moment.vcpu, moment.at)
        if not word(moment.record, "from").startswith("running") or word(moment.record, "to").startswith("running"):
            return
        found = next((handler for handler in reversed(lane.running) if handler.event == event), None)
        if found is None:  # it began before the trace did
            found = Handler(event, 0, None, moment.n)
            lane.handlers.append(found)
        else:
            lane.running.remove(found)
        self._end(lane, found, moment, cause.lower())

    def _end(self, lane: Lane, handler: Handler, moment: Moment, how: str) -> None:
        handler.end, handler.how = moment.at, how
        if handler.start is not None:
            lane.in_handlers += max(0, moment.at - handler.start)

    # ---- what came of it --------------------------------------------------------------------------------------------

    def document(self, first: int) -> list[dict[str, Any]]:
        """The lanes with what lasts into the time from `first` (ns) on, by vCPU; what no vCPU has comes last."""
        waiting: dict[int | None, list[list[Any]]] = {}
        for (event, vcpu), since in self._pending.items():
            waiting.setdefault(vcpu, []).append([since, None, event])
        found = []
        for vcpu in sorted(self.lanes.keys() | waiting.keys(), key=lambda vcpu: (vcpu is None, vcpu or 0)):
            lane = self.lane(vcpu)
            states = list(lane.states)
            if lane.state is not None and lane.state[1]:
                states.append([lane.state[0], None, lane.state[1]])
            found.append(
                {
                    "vcpu": vcpu,
                    "handlers": [h.span() for h in lane.handlers if h.end is None or h.end >= first],
                    "pending": [s for s in lane.pending if s[1] >= first] + waiting.get(vcpu, []),
                    "states": [s for s in states if s[1] is None or s[1] >= first],
                }
            )
        return found
