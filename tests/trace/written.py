"""Traces written by hand, as their readers get them: what a backend would write of a guest's calls and events."""

from __future__ import annotations

from typing import Any

from qemu_sdei.trace.arguments import ARGUMENTS, result_name
from qemu_sdei.trace.meta import TraceMeta

Record = dict[str, Any]
HZ = 62_500_000
TICK = 16
META = TraceMeta(
    guest="by-hand",
    vcpus=4,
    counter_hz=HZ,
    events=(
        {"event": 0, "name": "software", "type": "private", "priority": "normal"},
        {"event": 0x100, "name": "private-a", "type": "private", "priority": "normal"},
        {"event": 0x103, "name": "private-critical", "type": "private", "priority": "critical"},
        {"event": 0x200, "name": "shared-a", "type": "shared", "priority": "normal"},
    ),
)
STOPPED_AT = 1_000_000
"""Nanoseconds of the host's clock that the guest's counter is behind, to begin with."""


class Written:
    """A trace that grows. The host's clock goes on by a microsecond a record, or as `wait` says."""

    def __init__(self, now: int = 5_000_000_000, behind: int = STOPPED_AT) -> None:
        self.records: list[Record] = []
        self.now = now
        self.behind = behind

    def wait(self, ns: int) -> Written:
        """Let time pass."""
        self.now += ns
        return self

    def add(self, kind_: str, vcpu: int | None, **fields: Any) -> Record:
        """Add any record."""
        self.now += 1000
        record: Record = {"n": len(self.records) + 1, "type": kind_, "vcpu": vcpu, "time_ns": self.now, "counter": None}
        record |= {"at_ns": self.now, "at_error_ns": 0, "pc": None, **fields}
        self.records.append(record)
        return record

    def arrival(self, kind_: str, vcpu: int, late: int = 0, **fields: Any) -> Record:
        """A vCPU comes to EL3; the backend sees it `late` ns later."""
        counter = (self.now + 1000 - self.behind) // TICK
        at = counter * TICK + self.behind
        self.now += late
        record = self.add(kind_, vcpu, counter=counter, pc=0x8000_0000, **fields)
        record |= {"at_ns": at + TICK // 2, "at_error_ns": TICK}
        return record

    def call(self, function: str, *values: int, vcpu: int = 0, result: int | None = 0, then: str = "") -> Record:
        """A call; `result` None: it did not return."""
        args = dict(zip(ARGUMENTS.get(function, ("x1", "x2", "x3", "x4", "x5")), values, strict=False))
        return self.arrival(
            "call",
            vcpu,
            function=function,
            id=0,
            args=args,
            x=[0, *values],
            answered=True,
            result=result,
            result_name=None if result is None else result_name(function, result),
            then=then or ("returns" if result is not None else "handler"),
        )

    def transition(self, event: int, before: str, after: str, cause: str, vcpu: int = 0) -> Record:
        """An event's state changes."""
        return self.add("transition", vcpu, event=event, **{"from": before, "to": after, "cause": cause, "clause": "x"})

    def register(self, event: int, entry: int, vcpu: int = 0) -> Written:
        """A kernel registers and enables an event."""
        self.call("SDEI_EVENT_REGISTER", event, entry, entry + 0x40, 0, 0, vcpu=vcpu)
        self.transition(event, "unregistered", "registered", "REGISTER", vcpu)
        self.call("SDEI_EVENT_ENABLE", event, vcpu=vcpu)
        self.transition(event, "registered", "enabled", "ENABLE", vcpu)
        return self

    def trigger(self, event: int, vcpu: int | None = 0, outcome: str = "pending", by: str = "host") -> Record:
        """Somebody triggers an event."""
        return self.add("trigger", vcpu, event=event, by=by, outcome=outcome, why=None)

    def kick(self, vcpu: int = 0, late: int = 0) -> Record:
        """A vCPU comes because it was asked to."""
        return self.arrival("frame", vcpu, late, kind="kick", answered=True, then="handler")

    def deliver(self, event: int, vcpu: int = 0) -> Record:
        """The handler starts with the answer."""
        return self.transition(event, "enabled", "running", "DISPATCH", vcpu)

    def complete(self, event: int, vcpu: int = 0, function: str = "SDEI_EVENT_COMPLETE") -> Record:
        """The handler's end."""
        self.call(function, 0, vcpu=vcpu, result=None, then="resumes")
        return self.transition(event, "running", "enabled", "COMPLETE", vcpu)

    def handled(self, event: int, vcpu: int = 0, context: int = 0x1234) -> Written:
        """All of it: kicked, delivered, a register read, completed."""
        self.kick(vcpu)
        self.deliver(event, vcpu)
        self.call("SDEI_EVENT_CONTEXT", 0, vcpu=vcpu, result=context)
        self.complete(event, vcpu)
        return self
