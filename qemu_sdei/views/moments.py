"""Records of a trace as the views read them: whatever a file says, a field is of its type or not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.sdei.constants import MAX_SHARED_SLOTS, SHARED_SLOTS

Record = Mapping[str, Any]
MAX_VCPUS: Final = 512
"""vCPUs that have a place of their own in a view; QEMU's virt machine has no more."""
_FAR: Final = 1 << 52
"""Nanoseconds (52 days) beyond which a time is no time."""


_INTEGERS: Final = frozenset(
    (
        *("n", "vcpu", "time_ns", "at_ns", "at_error_ns", "counter", "pc", "pstate", "el", "id", "result", "event"),
        *("count", "intid", "vector", "esr", "since_ns", "kernels", "epoch", "pid", "next_pc", "call"),
    )
)
_WORDS: Final = frozenset(
    (
        *("type", "function", "result_name", "then", "kind", "from", "to", "cause", "clause", "by", "outcome", "why"),
        *("reason", "what", "phase", "name", "pc_symbol", "next_pc_symbol"),
    )
)
_MAX_ARGUMENTS: Final = 32


def cleaned(record: Record) -> dict[str, Any]:
    """`record` with those fields only that are of their type, or null. It has a `type`."""
    clean: dict[str, Any] = {"type": "unknown"}
    for key, value in record.items():
        if not isinstance(key, str):
            continue
        if value is None:
            if key == "type":
                continue
        elif key in _INTEGERS:
            # The event of an ftrace record is the kernel's, and has a name.
            if type(value) is not int and not (
                key == "event" and type(value) is str and record.get("type") == "ftrace"
            ):
                continue
        elif key in _WORDS:
            if type(value) is not str:
                continue
        elif key == "args":
            if not isinstance(value, Mapping):
                continue
            pairs = list(value.items())[:_MAX_ARGUMENTS]
            value = {name: number for name, number in pairs if type(name) is str and type(number) is int}
        clean[key] = value
    return clean


def integer(record: Record, key: str) -> int | None:
    """The field `key` if it is an integer."""
    value = record.get(key)
    return value if type(value) is int else None


def word(record: Record, key: str) -> str:
    """The field `key` if it is text, else "". It is foreign text."""
    value = record.get(key)
    return value if type(value) is str else ""


def argument(record: Record, key: str) -> int | None:
    """An argument of a call by its name."""
    arguments = record.get("args")
    return integer(arguments, key) if isinstance(arguments, Mapping) else None


@dataclass(slots=True, frozen=True)
class Moment:
    """A record with its place in time and space."""

    record: dict[str, Any]
    """Its fields that are of their type."""
    type: str
    n: int
    vcpu: int | None
    at: int
    """Nanoseconds since the first record of the trace."""
    error: int
    """Nanoseconds by which `at` may be off."""
    event: int | None


class Moments:
    """Makes a `Moment` of each record of one trace, in their order."""

    def __init__(self) -> None:
        self.first_ns: int | None = None
        """`at_ns` of the first record that has one: the zero of `Moment.at`."""
        self._at = 0
        self._n = 0

    def moment(self, given: Record) -> Moment:
        """A record without a time is where the one before it is; one without a number has the next."""
        record = cleaned(given)
        at_ns = integer(record, "at_ns")
        if at_ns is None:
            at_ns = integer(record, "time_ns")
        if at_ns:  # 0: nobody knows, such as of what is missing
            if self.first_ns is None:
                self.first_ns = at_ns
            self._at = max(-_FAR, min(_FAR, at_ns - self.first_ns))
        n = integer(record, "n")
        self._n = self._n + 1 if n is None or not 0 <= n < _FAR else n
        vcpu = integer(record, "vcpu")
        if vcpu is not None and not 0 <= vcpu < MAX_VCPUS:
            vcpu = None
        error = integer(record, "at_error_ns") or 0
        kind = word(record, "type")
        return Moment(record, kind, self._n, vcpu, self._at, max(0, min(_FAR, error)), event_of(record))


class SharedEvents:
    """Which events are shared: those that a trace says so of, and the slots for bound interrupts."""

    def __init__(self, events: Iterable[Record]) -> None:
        """`events`: as a trace's first line has them."""
        self._numbers = frozenset(event["event"] for event in events if event.get("type") == "shared")

    def __contains__(self, event: object) -> bool:
        return event in self._numbers or (
            isinstance(event, int) and SHARED_SLOTS <= event < SHARED_SLOTS + MAX_SHARED_SLOTS
        )


def event_of(record: Record) -> int | None:
    """Which event a record is about: its own field, or an argument of its call."""
    event = integer(record, "event")
    if event is None:
        event = argument(record, "event")
    return None if event is None else event & 0xFFFF_FFFF


def vcpu_of_affinity(affinity: int) -> int:
    """The vCPU with these affinity fields (MPIDR layout): QEMU's virt machine with GICv3 puts 16 into a cluster."""
    return (affinity >> 8 & 0xFF) * 16 + (affinity & 0xFF)
