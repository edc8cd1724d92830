"""The past of a guest, from its trace: since when, by which call, in which state then.

Records stand in the order of their numbers, and what follows from a call or another frame of a vCPU stands behind it.
Only the records since the last reset of the machine count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qemu_sdei.explain.picture import Picture, Record

_FRAMES: Final = ("call", "frame")
MASK: Final = "SDEI_PE_MASK"
UNMASK: Final = "SDEI_PE_UNMASK"


class History:
    """The past of one guest.

    Attributes:
        records: since the last reset of the machine, in order.
        complete: they begin with that reset: what they do not have did not happen.
    """

    def __init__(self, picture: Picture) -> None:
        records = picture.records
        boots = [at for at, record in enumerate(records) if record.get("type") == "boot"]
        self.records = records[boots[-1] :] if boots else records
        self.complete = bool(boots) and not any(record.get("type") == "dropped" for record in self.records)
        self._picture = picture
        self._shared = {event.number for event in picture.events if event.shared}
        self._by_instance: dict[tuple[int, int | None], list[Record]] = {}
        self._by_vcpu: dict[int | None, list[Record]] = {}
        for record in self.records:
            if record.get("type") == "transition":
                self._by_instance.setdefault(self._key(record), []).append(record)
            self._by_vcpu.setdefault(record.get("vcpu"), []).append(record)

    def _key(self, record: Record) -> tuple[int, int | None]:
        event = int(record["event"])
        return event, None if event in self._shared else record.get("vcpu")

    # ---- times

    def age(self, record: Record | None) -> int | None:
        """How long ago it was, in nanoseconds; None: not known."""
        if record is None:
            return None
        at = record.get("at_ns") or record.get("time_ns")
        return None if at is None else max(self._picture.now_ns - int(at), 0)

    def reach(self) -> int | None:
        """How far back the records go, in nanoseconds."""
        return self.age(self.records[0]) if self.records else None

    # ---- vCPUs

    def of(self, vcpu: int | None) -> list[Record]:
        """All records of a vCPU."""
        return self._by_vcpu.get(vcpu, [])

    def calls(self, vcpu: int | None = None, *names: str) -> Iterator[Record]:
        """Calls, the newest first: of one vCPU, or of all (None); by these names, or by all."""
        for record in reversed(self.records if vcpu is None else self.of(vcpu)):
            if record.get("type") == "call" and (not names or record.get("function") in names):
                yield record

    def last_call(self, vcpu: int) -> Record | None:
        """The newest call of a vCPU."""
        return next(self.calls(vcpu), None)

    def last_heard(self, vcpu: int) -> Record | None:
        """The newest call of a vCPU, or its newest frame that nobody has asked it for."""
        for record in reversed(self.of(vcpu)):
            if record.get("type") == "call" or (record.get("type") == "frame" and record.get("kind") == "exception"):
                return record
        return None

    def cause(self, record: Record) -> Record | None:
        """The call or frame that a record follows from: the newest before it, of its vCPU."""
        before: Record | None = None
        for other in self.of(record.get("vcpu")):
            if other["n"] >= record["n"]:
                break
            if other.get("type") in _FRAMES:
                before = other
        return before

    def mask_since(self, vcpu: int) -> Record | None:
        """What masked a vCPU that is masked: PE_MASK, CPU_ON, a suspend. None: not known."""
        for record in reversed(self.of(vcpu)):
            if record.get("type") == "call" and record.get("function") == MASK and record.get("result") != 0:
                return record
            if record.get("type") == "call" and record.get("function") == UNMASK:
                return None
            if record.get("type") == "power" and record.get("to") in ("on", "suspended"):
                return record
        return None

    # ---- events

    def transitions(self, event: int, vcpu: int | None) -> list[Record]:
        """Of an event's instance on a vCPU; of a shared one of all."""
        return self._by_instance.get((event, None if event in self._shared else vcpu), [])

    def all_transitions(self) -> Iterator[Record]:
        """Of all events."""
        return (record for record in self.records if record.get("type") == "transition")

    def since(self, event: int, vcpu: int | None) -> Record | None:
        """The transition that has brought an event's instance into the state that it is in."""
        found = self.transitions(event, vcpu)
        return found[-1] if found else None

    def state_age(self, event: int, vcpu: int | None) -> int | None:
        """How long an event's instance has been in its state, in nanoseconds: by the trace, or as the backend knows."""
        if (age := self.age(self.since(event, vcpu))) is not None:
            return age
        for of, instance in self._picture.instances():
            if of.number == event and instance.vcpu in (None, vcpu) and instance.since_ns is not None:
                return max(self._picture.now_ns - instance.since_ns, 0)
        return None

    def entered(self, event: int, vcpu: int | None) -> Record | None:
        """The newest time that its handler was entered."""
        return next((r for r in reversed(self.transitions(event, vcpu)) if r.get("cause") == "DISPATCH"), None)

    def state_at(self, event: int, vcpu: int | None, number: int) -> str:
        """Name of the state that an event's instance was in when record `number` was written."""
        found = self.transitions(event, vcpu)
        before = [record for record in found if record["n"] < number]
        if before:
            return str(before[-1]["to"])
        if found:
            return str(found[0]["from"])
        return next(
            (
                instance.state
                for of, instance in self._picture.instances()
                if of.number == event and (instance.vcpu is None or instance.vcpu == vcpu)
            ),
            "",
        )

    def running_at(self, vcpu: int, number: int) -> list[int]:
        """Events whose handlers ran on a vCPU when record `number` was written, the innermost last."""
        running: list[int] = []
        after = [r for r in self.of(vcpu) if r.get("type") == "transition" and r["n"] >= number]
        now = self._picture.vcpu(vcpu)
        running = list(now.running) if now is not None else []
        for record in reversed(after):  # back from now to then
            if record.get("cause") == "DISPATCH" and record["event"] in running:
                running.remove(record["event"])
            elif record.get("cause") == "COMPLETE":
                running.append(record["event"])
        return running

    def triggered(self, event: int, vcpu: int | None) -> Record | None:
        """What made an event pending last: the host, an interrupt, or a call of EVENT_SIGNAL."""
        target = self._picture.vcpu(vcpu) if vcpu is not None else None
        for record in reversed(self.records):
            if record.get("type") == "trigger" and record.get("event") == event:
                if record.get("vcpu") in (None, vcpu) or vcpu is None:
                    return record
            elif record.get("type") == "call" and record.get("function") == "SDEI_EVENT_SIGNAL":
                arguments = record.get("args", {})
                wanted = int(arguments.get("target", 0)) & 0xFF_00FF_FFFF
                if arguments.get("event") == event and target is not None and wanted == target.affinity:
                    return record
        return None

    # ---- kernels

    def kernel_began(self) -> Record | None:
        """The newest kernel that another one has started (kexec, a capture kernel)."""
        for record in reversed(self.records):
            if record.get("type") == "kernel" and (record.get("kernels") or 0) > 1:
                return record
        return None
