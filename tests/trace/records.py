"""Records of a trace, made by hand: what a guest with two vCPUs might have."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]

START: int = 7_200_000_000_000
META: Record = {
    "type": "trace",
    "version": 1,
    "program": "qemu-sdei 0.1.0",
    "guest": "demo",
    "vcpus": 2,
    "client_el": 1,
    "monitor": 4,
    "counter_hz": 62_500_000,
    "started_ns": START,
    "realtime_ns": 1_796_040_000_000_000_000,
    "events": [
        {"event": 0, "name": "software", "type": "private", "priority": "normal"},
        {"event": 0x100, "name": "private-a", "type": "private", "priority": "normal"},
        {"event": 0x104, "name": "watchdog", "type": "private", "priority": "critical"},
    ],
    "slots": 8192,
}


class Maker:
    """Makes records one after another; each lies some µs behind the one before."""

    def __init__(self) -> None:
        self.now = START
        self._n = 0

    def make(self, which: str, vcpu: int | None, /, **fields: Any) -> Record:
        self.now += 10_000
        self._n += 1
        head = {"n": self._n, "type": which, "vcpu": vcpu, "time_ns": self.now, "counter": None}
        return {**head, **fields, "at_ns": self.now, "at_error_ns": 0}

    def call(self, vcpu: int, function: str, result: int | None = 0, then: str = "returns", **args: int) -> Record:
        names = {0: "SUCCESS", -2: "INVALID_PARAMETERS", -3: "DENIED"}
        pc = 0xFFFF_8000_8001_2344
        words = [0xC400_0020, *args.values(), 0, 0, 0, 0, 0, 0]
        place = {"pc": pc, "pstate": 0x6040_00C5, "el": 1, "next_pc": pc}
        named = {"result": result, "result_name": None if result is None else names.get(result)}
        fields: Record = {"function": function, "id": words[0], "args": args, "x": words[:6], **place, **named}
        record = self.make("call", vcpu, **fields, answered=True, then=then)
        return {**record, "counter": (self.now - START) // 16, "at_error_ns": 12_000}

    def transition(self, vcpu: int | None, event: int, old: str, new: str, cause: str) -> Record:
        fields = {"event": event, "from": old, "to": new, "cause": cause, "clause": "DEN0054 6.1"}
        return self.make("transition", vcpu, **fields)

    def deliver(self, vcpu: int, event: int) -> Record:
        return self.transition(vcpu, event, "enabled", "running", "DISPATCH")

    def complete(self, vcpu: int, event: int) -> Record:
        return self.transition(vcpu, event, "running", "enabled", "COMPLETE")

    def kick(self, vcpu: int) -> Record:
        place = {"pc": 0xFFFF_8000_8001_2344, "pstate": 0x6040_00C5, "el": 1, "next_pc": 0xFFFF_8000_8001_0000}
        return self.make("frame", vcpu, kind="kick", **place, answered=True, then="handler")


def one_of_each() -> list[Record]:
    """A record of each kind."""
    m = Maker()
    operations = {**m.kick(0), "kind": "operations", "function": "CPU_OFF", "call": 3, "result": None}
    return [
        m.make("backend", None, what="started", pid=4711, program="qemu-sdei 0.1.0"),
        m.make("boot", None, epoch=1),
        m.make("power", 1, **{"from": None, "to": "off"}),
        m.call(0, "SDEI_EVENT_REGISTER", event=0, entry=0xFFFF_8000_8001_0000, argument=5, flags=0, affinity=0),
        m.call(0, "SDEI_EVENT_ENABLE", -3, event=0x77),
        m.call(0, "PSCI_VERSION", 0x10001),
        m.call(1, "CPU_OFF", None, "parks"),
        m.call(0, "SDEI_EVENT_COMPLETE", None, "resumes", status=0),
        {**m.call(0, "SDEI_VERSION"), "answered": False, "then": None, "result": None, "next_pc": None},
        m.transition(0, 0, "unregistered", "registered", "REGISTER"),
        m.make("trigger", 1, event=0, by="host", outcome="pending", why=None),
        m.make("trigger", None, event=0x104, by="interrupt", outcome="refused", why="event 0x104 is not registered"),
        m.make("undelivered", 1, event=0, reason="masked", why="vCPU 1 has masked events"),
        m.kick(1),
        {**m.kick(0), "kind": "exception", "vector": 0x400, "esr": 0xBE000000},
        {**operations, "result_name": None, "then": "parks"},
        m.deliver(1, 0),
        m.complete(1, 0),
        m.make("injection", 1, event=0, outcome="completed", ticket="t-1"),
        m.make("counted", 0, function="SDEI_VERSION", id=0xC400_0020, count=1000, since_ns=START),
        m.make("kernel", 0, kernels=2),
        m.make("migration", None, phase="paused", text="for a migration to 'demo-2'"),
        m.make("reject", 0, why="frame 0 has changed since it was posted"),
        m.make("unknown", 0, id=0x8600_FF01),
        m.make("note", None, name="heartbeat", seconds=3),
        m.make("dropped", None, count=12, why="the reader was too slow"),
        {
            **m.make("ftrace", 0, task="insmod", pid=85, flags="d..1.", event="function", text="sdei_event_enable <-x"),
            "time_ns": None,
            "guest_ns": 4_000_000_000,
        },
        m.make("ras", 1, source="memory", notify="sdei", bytes=172, severity=2, outcome="reported"),
        m.make("firmware", None, profile="slow", rules=1, summary="each call takes 3 ms"),
        m.make("misbehaved", 1, profile="tfa", rule=4, does="loses=event deaf=yes"),
        m.make("notification", 0, kind="abort", outcome="made", address=0x4000_0000, elr=0x4020_1000, spsr=0x3C5),
        m.make("priorities", 1, at="cpu-on", ap1r0=0x400_0000, active=[0xA0], then="ended"),
    ]
