"""A trace as a file for Perfetto's UI (https://ui.perfetto.dev): TrackEvents, in Perfetto's own format.

A track for each vCPU has the handlers as slices (a critical one inside the normal one that it interrupted) and calls,
state changes and the rest as instants; below it are its power state, how many events are pending there, and lines of
its ftrace. Arrows lead from a trigger, wherever it came from, to the handler's entry and on to its end.

Times are the host's monotonic clock; a snapshot ties it to real time. The messages' classes come with the package
`perfetto`, which pulls in nothing but `protobuf`; with `protobuf` alone we would have to carry Perfetto's 600 KB of
descriptions ourselves, and tests could not read a file back by anybody else's. Only `write_perfetto` needs it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, NamedTuple

from qemu_sdei.errors import UsageError
from qemu_sdei.printable import printable
from qemu_sdei.trace.columns import mood

Record = Mapping[str, Any]

_MONOTONIC: Final = 3
_REALTIME: Final = 1
_SEQUENCE: Final = 1
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4
_EXPLICIT: Final = 3
"""TrackDescriptor.ChildTracksOrdering: as `sibling_order_rank` says."""
_COUNT: Final = 2
"""CounterDescriptor.Unit."""
_STATE_CLEARED: Final = 1
_MOST_ARROWS: Final = 64
"""Triggers of one event that lead to one delivery and are drawn."""
_MOST_EVENTS: Final = 4096
_MOST_NESTED: Final = 16
_PACKETS_AT_ONCE: Final = 1024
_LATEST: Final = (1 << 63) - 1
_WORD: Final = (1 << 64) - 1
_MAX_TEXT: Final = 512
_HIDDEN: Final = frozenset(("type", "vcpu", "time_ns", "counter", "at_ns", "at_error_ns", "x", "answered", "next_pc"))
_NAMES: Final = {
    "frame": ("kind", "came to EL3: "),
    "undelivered": ("reason", "not delivered: "),
    "note": ("name", ""),
    "migration": ("phase", "migration: "),
    "backend": ("what", "backend: "),
    "counted": ("function", "counted: "),
}
"""What an instant is called: by a field of its record, and what stands before that."""
_DECIMAL: Final = frozenset(("n", "el", "result", "count", "pid", "epoch", "kernels", "seconds"))

_GUEST: Final = 1
_HOST: Final = 2
_VCPU: Final = 0x100
_PER_VCPU: Final = 0x10
_POWER, _PENDING, _FTRACE = 1, 2, 3
_MOST_VCPUS: Final = 4096


class Written(NamedTuple):
    """What is in the file."""

    records: int
    handlers: int
    arrows: int


@dataclass
class _Vcpu:
    """What is going on on a vCPU; of nobody's (-1) only what is pending."""

    handlers: list[tuple[int, list[int], int]] = field(default_factory=list)
    """Event, arrows that lead to it, begin; the innermost last."""
    power: str | None = None
    pending: dict[int, list[int]] = field(default_factory=dict)
    """Arrows of each event that is pending."""
    tracks: set[int] = field(default_factory=set)


def write_perfetto(out: BinaryIO, meta: Record, records: Iterable[Record]) -> Written:
    """Write `records` in their order to `out`. `meta`: the first line of a trace. Memory does not grow with them.

    Raises:
        UsageError: the package that has Perfetto's messages is not installed. `OSError`: of `out`.
    """
    return _Writer(out, meta, _messages()).write(records)


def check_installed() -> None:
    """Whether `write_perfetto` can do anything, before a file is opened for it. Raises `UsageError`, as that does."""
    _messages()


def _messages() -> Any:
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2
    except ImportError:
        raise UsageError("Perfetto files need the package perfetto: pip install 'qemu-sdei[perfetto]'") from None
    except Exception as error:  # such as protobuf's VersionError, which has no base of its own
        raise UsageError(
            f"the package perfetto cannot be used ({error}): pip install --upgrade 'qemu-sdei[perfetto]'"
        ) from None
    return perfetto_trace_pb2


class _Writer:
    def __init__(self, out: BinaryIO, meta: Record, messages: Any) -> None:
        self._out = out
        self._messages = messages
        self._trace = messages.Trace()
        self._names = {event["event"]: event["name"] for event in meta["events"]}
        self._vcpus: defaultdict[int, _Vcpu] = defaultdict(_Vcpu)
        self._arrows = self._records = self._handlers = 0
        self._begin(meta)

    def write(self, records: Iterable[Record]) -> Written:
        for record in records:
            self._records += 1
            vcpu = record["vcpu"]
            known = record if vcpu is None or 0 <= vcpu < _MOST_VCPUS else {**record, "vcpu": None}
            try:
                self._record(known)
            except (LookupError, TypeError, ValueError, AttributeError):  # it has other fields than its kind has
                self._instant(known, "damaged record")
            if len(self._trace.packet) >= _PACKETS_AT_ONCE:
                self._flush()
        self._flush()
        return Written(self._records, self._handlers, self._arrows)

    def _flush(self) -> None:
        """Traces that follow one another in a file are one."""
        self._out.write(self._trace.SerializeToString())
        self._trace = self._messages.Trace()  # one that is cleared keeps its memory

    # ---- packets -----------------------------------------------------------------------------------------------------

    def _begin(self, meta: Record) -> None:
        packet = self._packet()
        packet.sequence_flags = _STATE_CLEARED
        snapshot = packet.clock_snapshot
        snapshot.primary_trace_clock = _MONOTONIC
        for clock, value in ((_MONOTONIC, meta["started_ns"]), (_REALTIME, meta["realtime_ns"])):
            snapshot.clocks.add(clock_id=clock, timestamp=min(value, _LATEST))
        self._track(_GUEST, None, f"guest {meta['guest']}", 0)
        self._track(_HOST, _GUEST, "host", 0)
        for vcpu in range(meta["vcpus"]):
            self._track_of(vcpu)

    def _packet(self) -> Any:
        packet = self._trace.packet.add()
        packet.trusted_packet_sequence_id = _SEQUENCE
        return packet

    def _track(self, uuid: int, parent: int | None, name: str, rank: int, *, counter: bool = False) -> None:
        track = self._packet().track_descriptor
        track.uuid = uuid
        track.name = _text(name)
        track.child_ordering = _EXPLICIT
        track.sibling_order_rank = rank
        if parent is not None:
            track.parent_uuid = parent
        if counter:
            track.counter.unit = _COUNT

    def _track_of(self, vcpu: int | None, below: int = 0) -> int:
        """The track of a vCPU, or one of those below it; it is described when it is first used."""
        if vcpu is None or vcpu < 0:
            if below != _PENDING:
                return _HOST
            vcpu = -1
        known = self._vcpus[vcpu].tracks
        own = _VCPU + vcpu * _PER_VCPU
        if below not in known:
            known.add(below)
            if vcpu < 0:
                self._track(own + below, _GUEST, "pending events, no vCPU yet", 1, counter=True)
            elif below:
                name = {_POWER: "power", _PENDING: "pending events", _FTRACE: "ftrace"}[below]
                self._track(own + below, own, f"vCPU {vcpu} {name}", below, counter=below == _PENDING)
            else:
                self._track(own, _GUEST, f"vCPU {vcpu}", vcpu + 2)
        return own + below

    def _event(self, at: int, kind: int, track: int, name: str = "", category: str = "") -> Any:
        packet = self._packet()
        packet.timestamp = max(0, min(at, _LATEST))
        packet.timestamp_clock_id = _MONOTONIC
        event = packet.track_event
        event.type = kind
        event.track_uuid = track
        if name:
            event.name = _text(name)
        if category:
            event.categories.append(category)
        return event

    def _note(self, event: Any, record: Record) -> None:
        """What a record says, below the event that stands for it."""
        if record.get("at_error_ns"):
            event.debug_annotations.add(name="time may be off by, ns", int_value=min(record["at_error_ns"], _LATEST))
        for name, value in record.items():
            if name in _HIDDEN or value is None:
                continue
            for label, part in value.items() if type(value) is dict else ((name, value),):
                self._annotate(event, label, part)

    def _annotate(self, event: Any, name: str, value: Any) -> None:
        note = event.debug_annotations.add(name=name if name.isidentifier() and name.isascii() else _text(name))
        kind = type(value)
        if kind is bool:
            note.bool_value = value
        elif kind is int and name not in _DECIMAL and 0 <= value <= _WORD:
            note.pointer_value = value
        elif kind is int and -_LATEST <= value <= _LATEST:
            note.int_value = value
        else:
            note.string_value = _text(value)

    # ---- records -----------------------------------------------------------------------------------------------------

    def _record(self, record: Record) -> None:
        kind = record["type"]
        if kind == "transition":
            self._transition(record)
        elif kind == "power":
            self._power(record)
        elif kind == "ftrace":
            event = self._instant(record, str(record["event"]), self._track_of(record["vcpu"], _FTRACE))
            event.categories.append("ftrace")
        elif kind == "trigger":
            event = self._instant(record, f"trigger {self._named(record['event'])}", _HOST)
            if record["outcome"] != "refused":
                event.flow_ids.append(self._trigger(record, record["event"], record["vcpu"]))
        elif kind == "call":
            self._call(record)
        else:
            if kind == "boot":
                self._reset(record["at_ns"])
            label, name = _NAMES.get(kind, ("type", ""))
            self._instant(record, f"{name}{record[label]}")

    def _instant(self, record: Record, name: str, track: int | None = None) -> Any:
        where = self._track_of(record["vcpu"]) if track is None else track
        event = self._event(record["at_ns"], _INSTANT, where, name, mood(record))
        event.categories.append(record["type"])
        self._note(event, record)
        return event

    def _named(self, event: Any) -> str:
        number = f"{event:#x}" if isinstance(event, int) else str(event)
        name = self._names.get(event)
        return f"{number} {name}" if name else number

    def _call(self, record: Record) -> None:
        function, args, vcpu = record["function"], record["args"], record["vcpu"]
        named = record["result_name"]
        refused = named if named and record["result"] else ""
        event = self._instant(record, f"{function}: {refused}" if refused else function)
        # To the own vCPU: the handler is entered at once, and nobody sees the result before it ends.
        if function == "SDEI_EVENT_SIGNAL" and (record["result"] == 0 or record["then"] == "handler"):
            event.flow_ids.append(self._trigger(record, args.get("event", 0), _vcpu_of(args.get("target", 0))))
        elif function.startswith("SDEI_EVENT_COMPLETE") and record["result"] is None and self._vcpus[vcpu].handlers:
            event.terminating_flow_ids.extend(self._vcpus[vcpu].handlers[-1][1])

    def _trigger(self, record: Record, number: int, vcpu: int | None) -> int:
        """An event is pending. Returns the arrow that leads from what triggered it."""
        self._arrows += 1
        pending = self._vcpus[-1 if vcpu is None else vcpu].pending
        if number not in pending and len(pending) < _MOST_EVENTS:
            pending[number] = []
            self._count(record["at_ns"], vcpu)
        arrows = pending.get(number, [])
        if len(arrows) < _MOST_ARROWS:
            arrows.append(self._arrows)
        return self._arrows

    def _count(self, at: int, vcpu: int | None) -> None:
        event = self._event(at, _COUNTER, self._track_of(vcpu, _PENDING))
        event.counter_value = len(self._vcpus[-1 if vcpu is None else vcpu].pending)

    def _settle(self, at: int, number: int, vcpu: int | None) -> list[int]:
        """An event is not pending any more. Returns the arrows that led here."""
        arrows: list[int] = []
        for where in (vcpu, None) if vcpu is not None else (None,):
            found = self._vcpus[-1 if where is None else where].pending.pop(number, None)
            if found is not None:
                arrows += found
                self._count(at, where)
        return arrows

    def _transition(self, record: Record) -> None:
        number, at, cause = record["event"], record["at_ns"], record["cause"]
        before, after = (str(record[end]).startswith("running") for end in ("from", "to"))
        vcpu = record["vcpu"]
        if after and not before:
            handlers = self._vcpus[-1 if vcpu is None else vcpu].handlers
            if len(handlers) >= _MOST_NESTED:  # no guest has more than two
                self._end(None, vcpu, at)
            arrows = self._settle(at, number, vcpu)
            event = self._event(at, _BEGIN, self._track_of(vcpu), f"event {self._named(number)}", "handler")
            event.flow_ids.extend(arrows)
            self._note(event, record)
            handlers.append((number, arrows, at))
            self._handlers += 1
            return
        if before and not after:
            self._end(number, vcpu, at)
        if record["to"] == "unregistered":
            self._settle(at, number, vcpu)
        self._instant(record, f"{self._named(number)} {record['to']}: {cause}")

    def _end(self, number: int | None, vcpu: int | None, at: int) -> None:
        """A handler has ended, and those inside it, of which we have not heard; None: all of a vCPU's."""
        if vcpu is None:  # of a shared event, wherever it runs
            vcpu = next((v for v, s in self._vcpus.items() if any(n == number for n, *_ in s.handlers)), -1)
        handlers = self._vcpus[vcpu].handlers
        track = self._track_of(vcpu)
        if number is not None and all(number != other for other, *_ in handlers):
            return
        while handlers:
            inner, _, begun = handlers.pop()
            self._event(max(at, begun), _END, track)
            if inner == number:
                return

    def _power(self, record: Record) -> None:
        vcpu, at = record["vcpu"], record["at_ns"]
        state = self._vcpus[-1 if vcpu is None else vcpu]
        track = self._track_of(vcpu, _POWER)
        if state.power is not None:
            self._event(at, _END, track)
        state.power = str(record["to"])
        self._note(self._event(at, _BEGIN, track, state.power, "power"), record)

    def _reset(self, at: int) -> None:
        """The machine was reset: nothing runs, nothing is pending."""
        for vcpu, state in list(self._vcpus.items()):
            self._end(None, vcpu, at)
            if state.pending:
                state.pending.clear()
                self._count(at, None if vcpu < 0 else vcpu)


def _vcpu_of(mpidr: int) -> int:
    """The number of the vCPU with this affinity (QEMU with a GICv3: 16 to an Aff1, 256 of these to an Aff2)."""
    return (mpidr & 0xF) | (mpidr >> 8 & 0xFF) << 4 | (mpidr >> 16 & 0xFF) << 12


def _text(value: object) -> str:
    return printable(value, _MAX_TEXT)
