"""A trace as the decoder gives it, made by hand: of any length, with something of each kind in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from qemu_sdei.sdei.transitions import STATE_NAMES
from qemu_sdei.trace.meta import TraceMeta

EVENTS = (
    {"event": 0, "name": "software", "type": "private", "priority": "normal"},
    {"event": 0x103, "name": "private-critical", "type": "private", "priority": "critical"},
    {"event": 0x200, "name": "shared-a", "type": "shared", "priority": "normal"},
)
HZ = 62_500_000
BEGAN = 5_187_505_165_080


def meta(**changes: Any) -> TraceMeta:
    """Of which guest it is."""
    fields = {"guest": "demo", "vcpus": 4, "events": EVENTS, "started_ns": BEGAN, "program": "0.1.0"}
    return TraceMeta(**{**fields, "realtime_ns": 1_796_000_000_000_000_000, **changes})


class Writer:
    """Numbers the records, and has time pass."""

    def __init__(self) -> None:
        self.n = 0
        self.now = BEGAN + 1_000_000

    def record(self, kind: str, vcpu: int | None, /, after: int = 20_000, **fields: Any) -> dict[str, Any]:
        """The next record, `after` nanoseconds later."""
        self.n += 1
        self.now += after
        counter = None if vcpu is None else (self.now - BEGAN) * HZ // 1_000_000_000
        head = {"n": self.n, "type": kind, "vcpu": vcpu, "time_ns": self.now, "at_ns": self.now, "at_error_ns": 400}
        return {**head, "counter": counter, "pc": 0xFFFF_8000_0801_2340 + self.n % 64 * 4, **fields}

    def call(self, vcpu: int, name: str, number: int, result: int | None = 0, **fields: Any) -> dict[str, Any]:
        """A call."""
        args = fields.pop("args", {})
        then = fields.pop("then", "returns")
        named = fields.pop("named", "SUCCESS" if result == 0 else None)
        more: dict[str, Any] = {
            "x": [number, *args.values(), 0, 0, 0, 0, 0][:6],
            "pstate": 0x3C5,
            "el": 1,
            "answered": True,
        }
        return self.record(
            "call",
            vcpu,
            function=name,
            id=number,
            args=args,
            result=result,
            result_name=named,
            then=then,
            **more,
            **fields,
        )

    def transition(self, vcpu: int, event: int, old: int, new: int, cause: str, **fields: Any) -> dict[str, Any]:
        """A change of an event's state."""
        names: dict[str, Any] = {"from": STATE_NAMES[old], "to": STATE_NAMES[new]}
        return self.record("transition", vcpu, event=event, cause=cause, clause="DEN0054 6.1", **names, **fields)

    def power(self, vcpu: int, old: str, new: str) -> dict[str, Any]:
        """A vCPU starts or stops."""
        names: dict[str, Any] = {"from": old, "to": new}
        return self.record("power", vcpu, **names)


def boot(write: Writer, vcpus: int = 4) -> Iterator[dict[str, Any]]:
    """A kernel that comes up and registers its events."""
    yield write.record("backend", None, what="started", pid=4711, program="0.1.0", pc=None)
    yield write.record("boot", None, epoch=1, pc=None)
    yield write.call(0, "PSCI_VERSION", 0x8400_0000, 0x10001, named=None, after=900_000)
    for vcpu in range(1, vcpus):
        yield write.call(
            0, "CPU_ON", 0xC400_0003, args={"target": vcpu, "entry": 0x41A3_0000, "context": 0}, after=400_000
        )
        yield write.power(vcpu, "off", "on")
    for vcpu in range(vcpus):
        yield write.call(vcpu, "SDEI_PE_UNMASK", 0xC400_002C, after=90_000)
        for event in (0, 0x103):
            args = {"event": event, "entry": 0xFFFF_8000_0900_0000, "argument": 0, "flags": 0, "affinity": 0}
            yield write.call(vcpu, "SDEI_EVENT_REGISTER", 0xC400_0021, args=args)
            yield write.transition(vcpu, event, 0, 1, "REGISTER", after=2_000)
            yield write.call(vcpu, "SDEI_EVENT_ENABLE", 0xC400_0022, args={"event": event})
            yield write.transition(vcpu, event, 1, 3, "ENABLE", after=2_000)


def delivery(write: Writer, vcpu: int, random_: random.Random, *, nested: bool = False) -> Iterator[dict[str, Any]]:
    """An event from the host, handled; with `nested` a critical one interrupts its handler."""
    yield write.record("trigger", vcpu, after=50_000, event=0, by="host", outcome="pending", why=None)
    yield write.record(
        "frame", vcpu, after=random_.randrange(8_000, 60_000), kind="kick", pstate=0x5, el=1, then="handler"
    )
    yield write.transition(vcpu, 0, 3, 7, "DISPATCH", after=3_000)
    if nested:
        yield write.record("trigger", vcpu, event=0x103, by="host", outcome="pending", why=None)
        yield write.record("frame", vcpu, after=15_000, kind="kick", pstate=0x3C5, el=1, then="handler")
        yield write.transition(vcpu, 0x103, 3, 7, "DISPATCH", after=3_000)
        yield write.call(
            vcpu, "SDEI_EVENT_COMPLETE", 0xC400_0025, None, args={"status": 0}, then="resumes", after=30_000
        )
        yield write.transition(vcpu, 0x103, 7, 3, "COMPLETE", after=2_000)
    yield write.call(
        vcpu,
        "SDEI_EVENT_COMPLETE",
        0xC400_0025,
        None,
        args={"status": 0},
        then="resumes",
        after=random_.randrange(9_000, 90_000),
    )
    yield write.transition(vcpu, 0, 7, 3, "COMPLETE", after=2_000)


def trace(length: int = 600, vcpus: int = 4, seed: int = 13) -> Iterator[dict[str, Any]]:
    """A trace of about `length` records, which ends amid a handler."""
    write, random_ = Writer(), random.Random(seed)
    yield from boot(write, vcpus)
    turn = 0
    while write.n < length - 8:
        turn += 1
        vcpu = random_.randrange(vcpus)
        yield from delivery(write, vcpu, random_, nested=turn % 5 == 0)
        if turn % 7 == 0:
            denied: dict[str, Any] = {"result": -3, "named": "DENIED", "args": {"event": 0}}
            yield write.call(vcpu, "SDEI_EVENT_REGISTER", 0xC400_0021, **denied)
            yield write.call(
                vcpu, "SDEI_EVENT_SIGNAL", 0xC400_002F, -2, named="INVALID_PARAMETERS", args={"event": 9, "target": 1}
            )
        if turn % 11 == 0:
            yield write.call(vcpu, "SDEI_PE_MASK", 0xC400_002B, 1, named=None)
            yield write.record("trigger", vcpu, event=0, by="host", outcome="pending", why=None)
            yield write.record("undelivered", vcpu, event=0, reason="masked", why=f"PE {vcpu} is masked")
            yield write.call(vcpu, "SDEI_PE_UNMASK", 0xC400_002C, None, then="handler", after=700_000)
            yield write.transition(vcpu, 0, 3, 7, "DISPATCH", after=3_000)
            yield write.call(vcpu, "SDEI_EVENT_COMPLETE", 0xC400_0025, None, then="resumes", args={"status": 0})
            yield write.transition(vcpu, 0, 7, 3, "COMPLETE", after=2_000)
        if turn % 13 == 0:
            yield write.record("trigger", vcpu, event=0x200, by="host", outcome="refused", why="it is not registered")
            yield write.record("counted", vcpu, function="SDEI_VERSION", id=0xC400_0020, count=1000, since_ns=BEGAN)
    yield write.call(0, "CPU_OFF", 0x8400_0002, None, then="parks")
    yield write.power(0, "on", "off")
    yield write.record("unknown", 1, id=0xC600_0001)
    yield write.record("trigger", 1, event=0, by="host", outcome="pending", why=None)
    yield write.record("frame", 1, kind="kick", pstate=0x5, el=1, then="handler")
    yield write.transition(1, 0, 3, 7, "DISPATCH")
