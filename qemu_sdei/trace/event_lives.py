"""How long an event took, from what triggered it to its handler's end, and how sure that is.

Two clocks know parts of it. The guest's counter says when a vCPU came to EL3: with the frame that ended in the handler,
and with EVENT_COMPLETE. The host's clock says when the host triggered the event, and when the backend decided that the
handler starts. A duration between two moments of one clock is exact to a tick. One between both goes by `at_ns`,
in which the trace's alignment (`align.py`) has converted the counter, and carries the error of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from qemu_sdei.monitor.layout import MAX_CPUS
from qemu_sdei.sdei.constants import MAX_SHARED_SLOTS, SHARED_SLOTS
from qemu_sdei.sdei.transitions import STATE_NAMES, UNREGISTERED
from qemu_sdei.trace.meta import COUNTER_HZ, TraceMeta

_COMPLETIONS: Final = frozenset(("SDEI_EVENT_COMPLETE", "SDEI_EVENT_COMPLETE_AND_RESUME"))
_NS: Final = 1_000_000_000
_GONE: Final = STATE_NAMES[UNREGISTERED]
STOP_NS: Final = 10_000_000
"""A shorter stop of the virtual machine is not told from a host that was busy."""
MAX_OPEN: Final = 4096
"""Events that are followed at a time: a trace has few, a damaged one any number."""

STAGES: Final = {
    "to_el3": ("trigger to EL3", "until the vCPU came to the firmware, with the frame that ended in the handler"),
    "decision": ("EL3 to entry", "until the firmware's answer, by which the handler starts"),
    "handler": ("entry to complete", "until the handler's EVENT_COMPLETE came to the firmware"),
    "in_guest": ("EL3 to complete", "both by the guest's counter, so that nothing had to be converted"),
    "entry": ("trigger to entry", ""),
    "complete": ("trigger to complete", ""),
}
"""What `EventLife.stage` and `summarise` know, in this order: the first three follow one another. Titles, and what is
meant.
"""


@dataclass(frozen=True)
class Moment:
    """When something happened.

    Attributes:
        host_ns: by the host's monotonic clock.
        error_ns: how far `host_ns` may be off: 0 where the host itself took it.
        counter: the guest's counter; None: the host took the time.
    """

    host_ns: int
    error_ns: int = 0
    counter: int | None = None


@dataclass(frozen=True)
class Stage:
    """A duration.

    Attributes:
        ns: nanoseconds. Where two clocks are in it, it can be less than 0, but not by more than the error.
        error_ns: how far it may be off.
        clock: "guest", "host" or, converted, "both".
    """

    ns: int
    error_ns: int
    clock: str

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {"ns": self.ns, "error_ns": self.error_ns, "clock": self.clock}


@dataclass
class EventLife:
    """One delivery of an event, with what was merged into it.

    Attributes:
        event: its number.
        vcpu: where its handler ran, or will run; None: not decided.
        by: what triggered it: "host", "interrupt", "guest" (EVENT_SIGNAL); None: that was before the trace begins.
        triggered, came, entered, completed: the four moments; None: not (yet), or not in the trace. When a handler was
            entered that a call of the guest ended in, the backend does not write down: that costs too much.
        outcome: "pending", "running", "completed"; "ended": its CPU went off inside the handler; "dropped": it was
            unregistered or reset before; "unknown": records are missing.
        completed_by: function of the call that completed it.
        merged: further triggers that this one delivery stands for.
        nested: handlers that interrupted this one.
        nested_ns: how long these took, by the guest's counter.
        disturbed: what happened meanwhile that is no latency of the guest's: "migration", "restart" (of the backend),
            "stop" (of the virtual machine).
        n: serial number of the record with which it began.
        was_there: the vCPU was at EL3 already when the event was triggered: `came` is that moment.
        hz: of the guest's counter.
    """

    event: int
    vcpu: int | None
    n: int
    by: str | None = None
    triggered: Moment | None = None
    came: Moment | None = None
    entered: Moment | None = None
    completed: Moment | None = None
    outcome: str = "pending"
    completed_by: str | None = None
    merged: int = 0
    nested: int = 0
    nested_ns: int = 0
    disturbed: set[str] = field(default_factory=set)
    was_there: bool = False
    hz: int = COUNTER_HZ

    def stage(self, name: str) -> Stage | None:
        """One of `STAGES`; None: a moment of it is not known."""
        begin, end = {
            "to_el3": (self.triggered, self.came),
            "decision": (self.came, self.entered),
            "handler": (self.entered, self.completed),
            "in_guest": (self.came, self.completed),
            "entry": (self.triggered, self.entered),
            "complete": (self.triggered, self.completed),
        }[name]
        return None if begin is None or end is None else between(begin, end, self.hz)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        found = {name: stage.document() for name in STAGES if (stage := self.stage(name)) is not None}
        return {
            "event": self.event,
            "vcpu": self.vcpu,
            "n": self.n,
            "by": self.by,
            "outcome": self.outcome,
            "completed_by": self.completed_by,
            "merged": self.merged,
            "nested": self.nested,
            "nested_ns": self.nested_ns,
            "disturbed": sorted(self.disturbed),
            "was_there": self.was_there,
            "stages": found,
        }


def between(begin: Moment, end: Moment, hz: int) -> Stage | None:
    """How long from `begin` to `end`, by one clock if one knows both; None: the clocks contradict each other, as
    where a snapshot was loaded meanwhile.
    """
    if begin.counter is not None and end.counter is not None and begin.counter <= end.counter:
        return Stage((end.counter - begin.counter) * _NS // hz, -(-_NS // hz), "guest")
    clock = "host" if begin.counter is None and end.counter is None else "both"
    stage = Stage(end.host_ns - begin.host_ns, begin.error_ns + end.error_ns, clock)
    return stage if stage.ns >= -stage.error_ns else None


def stages(records: Iterable[Mapping[str, Any]], meta: TraceMeta | None = None) -> list[EventLife]:
    """Every delivery in `records` (decoded, in order), and every trigger that came to none; in the order in which they
    began. `meta`: what the trace says of its guest: which events are shared, how fast its counter runs.
    """
    book = LifeBook(meta)
    lives = [life for record in records for life in book.feed(record)]
    return sorted([*lives, *book.open()], key=lambda life: life.n)


class LifeBook:
    """The same for records that come in one after the other, such as those of a guest that runs."""

    def __init__(self, meta: TraceMeta | None = None) -> None:
        self._hz = COUNTER_HZ if meta is None else meta.counter_hz
        events = () if meta is None else meta.events
        self._shared = frozenset(event["event"] for event in events if event.get("type") == "shared")
        self._pending: dict[tuple[int, int | None], EventLife] = {}
        """By event and vCPU; None: a shared event, which any vCPU may take."""
        self._running: dict[int, list[EventLife]] = {}
        """Of each vCPU, the innermost handler last."""
        self._came: dict[int, Mapping[str, Any]] = {}
        """Of each vCPU the frame or call by which it came to EL3 last."""
        self._offset: int | None = None
        """The most that the host's clock is ahead of the counter, by the newest record that has both."""

    def open(self) -> list[EventLife]:
        """Those that have not ended."""
        return [*self._pending.values(), *(life for stack in self._running.values() for life in stack)]

    def feed(self, record: Mapping[str, Any]) -> list[EventLife]:
        """Take note of a record. Returns the lives that ended with it."""
        kind = record.get("type")
        if kind in ("call", "frame"):
            self._arrive(record)
            if kind == "call" and record.get("function") == "SDEI_EVENT_SIGNAL":
                self._signal(record)
        elif kind == "trigger":
            event = _integer(record, "event")
            if record.get("outcome") in ("pending", "merged") and event is not None:
                self._trigger(record, event, str(record.get("by") or "host"), _vcpu(record))
        elif kind == "transition":
            return list(self._transition(record))
        elif kind == "boot":
            return self._all_end("dropped")
        elif kind == "dropped":
            return self._all_end("unknown")
        elif kind == "migration" or (kind == "backend" and record.get("what") == "incoming"):
            self._disturb("migration")
        elif kind == "backend":
            self._disturb("restart")
        return []

    def _disturb(self, what: str) -> None:
        for life in self.open():
            life.disturbed.add(what)

    def _arrive(self, record: Mapping[str, Any]) -> None:
        """A vCPU has come to EL3."""
        vcpu = _vcpu(record)
        # Micro-operations are part of the exchange that asked for them.
        if vcpu is None or record.get("kind") == "operations":
            return
        self._came[vcpu] = record
        moment = self._guest(record)
        if moment is None or moment.counter is None:
            return
        # Host clock minus counter grows while the virtual machine is stopped, and by nothing else.
        offset = moment.host_ns - moment.counter * _NS // self._hz
        if self._offset is not None and offset - moment.error_ns > self._offset + STOP_NS:
            self._disturb("stop")
        self._offset = offset + moment.error_ns

    # ---- moments -----------------------------------------------------------------------------------------------------

    def _guest(self, record: Mapping[str, Any] | None) -> Moment | None:
        """When the vCPU came to EL3 with a frame; if its monitor does not tell, when the backend saw it."""
        at = None if record is None else _integer(record, "at_ns", "time_ns")
        if record is None or at is None:
            return None
        return Moment(at, abs(_integer(record, "at_error_ns") or 0), _integer(record, "counter"))

    # ---- what happens ------------------------------------------------------------------------------------------------

    def _signal(self, call: Mapping[str, Any]) -> None:
        """EVENT_SIGNAL of a guest."""
        args = call.get("args")
        if not isinstance(args, dict) or call.get("result") not in (None, 0) or call.get("then") == "parks":
            return
        event, target = _integer(args, "event"), _integer(args, "target")
        if event is not None and target is not None:
            self._trigger(call, event & 0xFFFF_FFFF, "guest", vcpu_of(target))

    def _trigger(self, record: Mapping[str, Any], event: int, by: str, vcpu: int | None) -> None:
        for key in ((event, vcpu), (event, None)):
            if (life := self._pending.get(key)) is not None:
                life.merged += 1
                return
        if len(self._pending) >= MAX_OPEN:
            return
        life = self._begun(record, event, vcpu, by)
        if record.get("outcome") == "merged":
            life.merged = 1  # the one that it was merged with came before the trace begins
        elif by == "guest":
            life.triggered = self._guest(record)
        else:
            life.triggered = _stamped(record)
        self._pending[event, vcpu] = life

    def _begun(self, record: Mapping[str, Any], event: int, vcpu: int | None, by: str | None = None) -> EventLife:
        return EventLife(event, vcpu, _integer(record, "n") or 0, by, hz=self._hz)

    def _transition(self, record: Mapping[str, Any]) -> Iterator[EventLife]:
        vcpu, event, cause = _vcpu(record), _integer(record, "event"), record.get("cause")
        if event is None:
            return
        if cause == "DISPATCH" and vcpu is not None:
            yield from self._enter(record, event, vcpu)
        elif cause == "COMPLETE" and vcpu is not None:
            yield from self._complete(event, vcpu)
        elif record.get("to") == _GONE:
            yield from self._drop(event, vcpu, running=True)
        elif cause in ("UNREGISTER", "REGISTER", "RELEASE"):
            yield from self._drop(event, vcpu, running=False)

    def _enter(self, record: Mapping[str, Any], event: int, vcpu: int) -> Iterator[EventLife]:
        life = self._pending.pop((event, vcpu), None) or self._pending.pop((event, None), None)
        if life is None:  # a shared event that was meant for another vCPU, or its trigger is not in the trace
            life = self._meant_elsewhere(event) or self._begun(record, event, vcpu)
        life.vcpu = vcpu
        life.outcome = "running"
        came = self._came.get(vcpu)
        life.came = self._guest(came)
        # What has the stamp of its call says when that was seen, and not when it was answered.
        life.entered = None if came is not None and came.get("time_ns") == record.get("time_ns") else _stamped(record)
        if _before(life.came, life.triggered):
            life.came, life.was_there = life.triggered, True
        stack = self._running.setdefault(vcpu, [])
        if stack:
            stack[-1].nested += 1
        stack.append(life)
        if len(stack) > MAX_OPEN:
            yield _ended(stack.pop(0), "unknown")

    def _meant_elsewhere(self, event: int) -> EventLife | None:
        """What is pending of a shared event, for whichever vCPU."""
        key = next((key for key in self._pending if key[0] == event), None) if self._is_shared(event) else None
        return None if key is None else self._pending.pop(key)

    def _is_shared(self, event: int) -> bool:
        return event in self._shared or SHARED_SLOTS <= event < SHARED_SLOTS + MAX_SHARED_SLOTS

    def _complete(self, event: int, vcpu: int) -> Iterator[EventLife]:
        stack = self._running.get(vcpu, [])
        if all(life.event != event for life in stack):
            return  # it began before the trace does
        while stack[-1].event != event:
            yield _ended(stack.pop(), "unknown")
        life = stack.pop()
        came = self._came.get(vcpu)
        life.completed_by = None if came is None else came.get("function")
        if came is not None and came.get("type") == "call" and life.completed_by not in _COMPLETIONS:
            yield _ended(life, "ended")
            return
        life.completed = self._guest(came)
        if life.came is not None and life.completed is not None and not life.disturbed:
            life.came, life.completed = _agreed(life.came, life.completed, self._hz)
        if stack and life.came is not None and life.completed is not None:
            took = between(life.came, life.completed, self._hz)
            stack[-1].nested_ns += 0 if took is None else took.ns
        yield _ended(life, "completed")

    def _drop(self, event: int, vcpu: int | None, *, running: bool) -> Iterator[EventLife]:
        if self._is_shared(event):
            vcpu = None  # the record names whoever unregistered it
        for key in [key for key in self._pending if key[0] == event and (vcpu is None or key[1] in (vcpu, None))]:
            yield _ended(self._pending.pop(key), "dropped")
        if running:
            for pe, stack in self._running.items():
                for life in [life for life in stack if life.event == event and vcpu in (None, pe)]:
                    stack.remove(life)
                    yield _ended(life, "dropped")

    def _all_end(self, outcome: str) -> list[EventLife]:
        lives = [_ended(life, outcome) for life in self.open()]
        self._pending.clear()
        self._running.clear()
        self._came.clear()
        return lives


def _agreed(begin: Moment, end: Moment, hz: int) -> tuple[Moment, Moment]:
    """Two moments between which the guest ran: what the counter says of the time between them is exact, so the host's
    time of the one that is known better tells that of the other.
    """
    if begin.counter is None or end.counter is None or begin.counter > end.counter:
        return begin, end
    passed, tick = (end.counter - begin.counter) * _NS // hz, -(-_NS // hz)
    if begin.error_ns + tick < end.error_ns:
        return begin, Moment(begin.host_ns + passed, begin.error_ns + tick, end.counter)
    if end.error_ns + tick < begin.error_ns:
        return Moment(end.host_ns - passed, end.error_ns + tick, begin.counter), end
    return begin, end


def _ended(life: EventLife, outcome: str) -> EventLife:
    life.outcome = outcome
    return life


def _integer(record: Mapping[str, Any], *names: str) -> int | None:
    """The first of these fields that is a number: a trace may come from anywhere."""
    return next((value for name in names if type(value := record.get(name)) is int), None)


def _vcpu(record: Mapping[str, Any]) -> int | None:
    vcpu = _integer(record, "vcpu")
    return vcpu if vcpu is not None and 0 <= vcpu < MAX_CPUS else None


def _stamped(record: Mapping[str, Any]) -> Moment | None:
    """When the backend wrote a record; None: it did not look at the clock."""
    at = _integer(record, "time_ns")
    return None if at is None else Moment(at)


def _before(came: Moment | None, triggered: Moment | None) -> bool:
    """Whether the vCPU came to EL3 before the event was triggered, beyond doubt."""
    if came is None or triggered is None:
        return False
    if came.counter is not None and triggered.counter is not None:
        return came.counter < triggered.counter
    return came.host_ns + came.error_ns + triggered.error_ns < triggered.host_ns


def vcpu_of(affinity: int) -> int:
    """The vCPU of an affinity, in QEMU's order with a GICv3: 16 in an Aff1 cluster, 256 clusters in an Aff2."""
    return affinity & 0xF | (affinity >> 8 & 0xFF) << 4 | (affinity >> 16 & 0xFF) << 12
