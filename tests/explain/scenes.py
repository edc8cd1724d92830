"""Guests by hand: what the firmware would know of one, and the trace that it would have written.

A `Scene` does what the firmware does as far as a picture shows it: states by the state table, records in their order.
The real firmware's records are in tests/guest/test_explain.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qemu_sdei.explain.picture import Event, Instance, Picture, Record, Vcpu
from qemu_sdei.sdei.transitions import (
    BIT_ENABLED,
    BIT_REGISTERED,
    BIT_RUNNING,
    STATE_NAMES,
    STEP,
    Action,
    Latch,
)

S = 1_000_000_000
SOFTWARE, PRIVATE, CRITICAL, SHARED, GHES = 0, 0x100, 0x103, 0x200, 0x324
NAMES = {SOFTWARE: "software", PRIVATE: "private-a", CRITICAL: "private-critical", SHARED: "shared-a", GHES: "ghes"}
PC = 0x4020_1000
_CODES = {0: "SUCCESS", -2: "INVALID_PARAMETERS", -3: "DENIED", -4: "ALREADY_ON", -5: "PENDING"}


class Scene:
    """A guest to which things happen; each takes a millisecond, and `passes` lets time pass."""

    def __init__(self, vcpus: int = 2) -> None:
        self.now = 1000 * S
        self.records: list[Record] = []
        self.vcpus = [Vcpu(n, n, "off", masked=True) for n in range(vcpus)]
        self.state: dict[tuple[int, int | None], int] = {}
        self.pending: set[tuple[int, int | None]] = set()
        self.facts: dict[str, Any] = {}
        self.kernels = 0
        self.record("boot", None, epoch=1)
        self.on(0)
        self.kernel(0)

    def key(self, event: int, vcpu: int | None) -> tuple[int, int | None]:
        return event, None if event in (SHARED, GHES) else vcpu

    def passes(self, seconds: float) -> Scene:
        self.now += int(seconds * S)
        return self

    def record(self, kind: str, vcpu: int | None, /, **fields: Any) -> Record:
        self.now += S // 1000
        n = self.records[-1]["n"] + 1 if self.records else 1
        record = {"n": n, "type": kind, "vcpu": vcpu, "time_ns": self.now, "at_ns": self.now, "counter": None, **fields}
        self.records.append(record)
        return record

    def call(
        self, vcpu: int, function: str, result: int | None = 0, then: str = "returns", /, **arguments: int
    ) -> None:
        name = None if result is None else _CODES.get(result)
        known = {"id": 0xC400_0000, "pc": PC, "pstate": 0x3C5, "el": 1, "answered": True}
        self.record(
            "call", vcpu, function=function, args=arguments, result=result, result_name=name, then=then, **known
        )

    def kernel(self, vcpu: int) -> None:
        """A kernel begins."""
        self.kernels += 1
        self.call(vcpu, "MIGRATE_INFO_TYPE", 2)
        self.record("kernel", vcpu, kernels=self.kernels)

    def on(self, vcpu: int) -> None:
        self.record("power", vcpu, **{"from": "off", "to": "on"})
        self.vcpus[vcpu] = replace(self.vcpus[vcpu], power="on", masked=True)

    def step(self, action: Action, vcpu: int, event: int) -> int:
        key = self.key(event, vcpu)
        old = self.state.get(key, 0)
        result, new, latch = STEP[action][old]
        if latch != Latch.KEEP:
            self.pending.discard(key)
        if latch == Latch.SET:
            self.pending.add(key)
        self.state[key] = new
        if new != old:
            states = {"from": STATE_NAMES[old], "to": STATE_NAMES[new]}
            self.record("transition", vcpu, event=event, cause=action.name, clause="", **states)
        return result

    def does(self, vcpu: int, action: Action, event: int) -> None:
        """EVENT_REGISTER, ENABLE, DISABLE, UNREGISTER."""
        result = STEP[action][self.state.get(self.key(event, vcpu), 0)][0]
        self.call(vcpu, f"SDEI_EVENT_{action.name}", result, event=event)
        self.step(action, vcpu, event)

    def enable(self, vcpu: int, event: int) -> None:
        self.does(vcpu, Action.REGISTER, event)
        self.does(vcpu, Action.ENABLE, event)

    def mask(self, vcpu: int) -> None:
        self.call(vcpu, "SDEI_PE_MASK", int(not self.vcpus[vcpu].masked))
        self.vcpus[vcpu] = replace(self.vcpus[vcpu], masked=True)

    def unmask(self, vcpu: int) -> None:
        self.call(vcpu, "SDEI_PE_UNMASK")
        self.vcpus[vcpu] = replace(self.vcpus[vcpu], masked=False)

    def trigger(self, event: int, vcpu: int | None) -> None:
        self.record("trigger", vcpu, event=event, by="host", outcome="pending", why=None)
        self.step(Action.TRIGGER, vcpu or 0, event)

    def enter(self, vcpu: int, event: int) -> None:
        """The handler begins."""
        self.trigger(event, vcpu)
        self.record("frame", vcpu, kind="kick", pc=PC, pstate=0x3C5, el=1, then="handler")
        self.step(Action.DISPATCH, vcpu, event)
        self.vcpus[vcpu] = replace(self.vcpus[vcpu], running=(*self.vcpus[vcpu].running, event))

    def complete(self, vcpu: int, *, by: str = "SDEI_EVENT_COMPLETE") -> None:
        """The handler ends by a call."""
        self.call(vcpu, by, None, "resumes" if by != "CPU_OFF" else "parks")
        self._end(vcpu)

    def _end(self, vcpu: int) -> None:
        *rest, event = self.vcpus[vcpu].running
        self.step(Action.COMPLETE, vcpu, event)
        self.vcpus[vcpu] = replace(self.vcpus[vcpu], running=tuple(rest))

    def off(self, vcpu: int) -> None:
        """CPU_OFF, wherever it is."""
        self.call(vcpu, "CPU_OFF", None, "parks")
        while self.vcpus[vcpu].running:
            self._end(vcpu)
        for event, on in list(self.state):
            if on == vcpu:
                self.step(Action.PE_RESET, vcpu, event)
        self.record("power", vcpu, **{"from": "on", "to": "off"})
        self.vcpus[vcpu] = replace(self.vcpus[vcpu], power="off", masked=True)

    def suspend(self, vcpu: int) -> None:
        """CPU_SUSPEND to a power-down, and back: its next call comes from its entry point."""
        self.call(vcpu, "CPU_SUSPEND", None, "operations", power_state=1 << 16, entry=PC, context=0)
        self.record("power", vcpu, **{"from": "on", "to": "suspended"})
        self.vcpus[vcpu] = replace(self.vcpus[vcpu], masked=True)

    def change(self, vcpu: int, **facts: Any) -> None:
        self.vcpus[vcpu] = replace(self.vcpus[vcpu], **facts)

    def picture(self, **facts: Any) -> Picture:
        """As it stands now."""
        events = []
        for number, name in NAMES.items():
            shared = number in (SHARED, GHES)
            instances = []
            for vcpu in [None] if shared else range(len(self.vcpus)):
                state = self.state.get((number, vcpu), 0)
                runs = next((v.index for v in self.vcpus if number in v.running and vcpu in (None, v.index)), None)
                instances.append(
                    Instance(
                        number,
                        vcpu,
                        registered=bool(state & BIT_REGISTERED),
                        enabled=bool(state & BIT_ENABLED),
                        running=bool(state & BIT_RUNNING),
                        pending=(number, vcpu) in self.pending,
                        running_on=runs,
                    )
                )
            critical, acpi = number == CRITICAL, "ghes" if number == GHES else ""
            events.append(Event(number, name, shared, critical, acpi, tuple(instances)))
        known: dict[str, Any] = {"guest": "scene", "now_ns": self.now, "kernels": self.kernels}
        known |= {"vcpus": tuple(self.vcpus), "events": tuple(events), "records": tuple(self.records)}
        return Picture(**(known | facts))


def ready(vcpus: int = 2, *events: int) -> Scene:
    """A healthy guest: all vCPUs are on and unmasked, and take these events (event 0)."""
    scene = Scene(vcpus)
    for vcpu in range(vcpus):
        if vcpu:
            scene.call(0, "CPU_ON", 0, target=vcpu, entry=PC, context=0)
            scene.on(vcpu)
        for event in events or (SOFTWARE,):
            if event not in (SHARED, GHES) or not vcpu:
                scene.enable(vcpu, event)
        scene.unmask(vcpu)
    return scene
