"""A trace as sequences of steps that can be compared with another trace's: what differs from run to run is folded.

A step is a call or something else that the guest's software brought about. What one vCPU does is one sequence, but for
the handlers of events: when a handler interrupts is chance, so the handlers of each event are a sequence of their own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from qemu_sdei.monitor.layout import MAX_CPUS
from qemu_sdei.sdei.transitions import STATE_NAMES, UNREGISTERED
from qemu_sdei.trace.clauses import clause_of_answer
from qemu_sdei.trace.folds import FOLDS
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.trace.step_lists import MAX_KINDS, MAX_TEXT, OWN, FullError, Lane, LaneKey, Outcome, Run, Vocabulary

MAX_STEPS: Final = 1_000_000
"""Of one trace: what comes after is not compared."""
_MAX_RUN: Final = 10_000
"""Calls in one run of a handler that are compared as a whole."""

_ADDRESSES: Final = frozenset(("entry", "address", "argument", "context", "cookie"))
_VALUES: Final = frozenset(
    (
        *("SDEI_EVENT_CONTEXT", "PSCI_STAT_RESIDENCY", "PSCI_STAT_COUNT", "NODE_HW_STATE"),
        *("TRNG_RND", "TRNG_GET_UUID", "VENDOR_HYP_KVM_PTP", "VENDOR_HYP_CALL_UID"),
    )
)
_VALUE: Final = "a value"
_CONTEXT: Final = "SDEI_EVENT_CONTEXT"
_CONTEXT_REGISTERS: Final = 18
"""Those that can be asked for: x0 to x17. Any of them may look like a code of an error."""
_COMPLETIONS: Final = frozenset(("SDEI_EVENT_COMPLETE", "SDEI_EVENT_COMPLETE_AND_RESUME"))
_POLLS: Final = frozenset(("AFFINITY_INFO", "SDEI_EVENT_STATUS"))
"""Functions that are called until the answer is another one."""
_ANYWHERE: Final = frozenset(
    (
        *("SDEI_VERSION", "SDEI_EVENT_GET_INFO", "SDEI_FEATURES", "SDEI_SHARED_RESET", "SDEI_EVENT_SIGNAL"),
        *("SDEI_INTERRUPT_BIND", "SDEI_INTERRUPT_RELEASE", "SDEI_EVENT_ROUTING_SET"),
        *("PSCI_VERSION", "PSCI_FEATURES", "MIGRATE_INFO_TYPE", "CPU_ON", "AFFINITY_INFO"),
        *("SYSTEM_OFF", "SYSTEM_RESET", "SYSTEM_RESET2"),
        *("SMCCC_VERSION", "SMCCC_ARCH_FEATURES", "SMCCC_ARCH_SOC_ID"),
    )
)
"""Functions whose callers are all the same to them."""
_IDLE: Final = frozenset(("CPU_SUSPEND", "CPU_DEFAULT_SUSPEND"))
_STATES: Final = {name: value for value, name in STATE_NAMES.items()}
_NUMBER: Final = re.compile(r"0x[0-9a-fA-F]{5,}")
_FAULTS: Final = frozenset(("exception", "fault", "bad-answer"))
_NOT_EFFECTS: Final = frozenset(("DISPATCH", "RESET"))


def steps_of(
    records: Iterable[Mapping[str, Any]], meta: TraceMeta, words: Vocabulary, folds: frozenset[str] = frozenset(FOLDS)
) -> Run:
    """What `records` (decoded, in order) have to be compared. `folds`: names of FOLDS."""
    maker = _Maker(Run(meta), words, folds)
    try:
        for record in records:
            maker.feed(record)
        maker.end()
    except FullError:
        maker.run.cut = min(maker.steps, MAX_STEPS)
    return maker.run


@dataclass
class _Open:
    """A call whose outcome is not complete yet."""

    lane: LaneKey
    function: str
    kind: int
    number: int
    time: int
    vcpu: int
    result: int | None = None
    named: str | None = None
    answered: bool = True
    then: str = ""
    state: int | None = None
    in_context: bool = False
    """EVENT_CONTEXT, where it answers with a register's content."""
    effects: list[str] = field(default_factory=list)


class _Maker:
    """Makes a `Run` of records."""

    def __init__(self, run: Run, words: Vocabulary, folds: frozenset[str]) -> None:
        self.run = run
        self.steps = 0
        self._words = words
        self._folds = folds
        self._open: dict[int, _Open] = {}
        """By vCPU."""
        self._newest: int | None = None
        """The vCPU that came to the firmware last: what changes is its doing."""
        self._stack: dict[int, list[int]] = defaultdict(list)
        self._handlers: dict[LaneKey, list[tuple[int, int, int, int]]] = {}
        """Runs of handlers that are not over."""
        self._runs: dict[tuple[LaneKey, tuple[tuple[int, int], ...]], int] = {}
        """Runs of handlers that were, and where in their lane each begins."""
        self._states: dict[tuple[int, int], int] = {}
        self._shared = frozenset(event["event"] for event in run.meta.events if event.get("type") == "shared")
        self._begun = False

    def feed(self, record: Mapping[str, Any]) -> None:
        """Take note of a record. Raises `FullError`: nothing more can be compared."""
        kind = record.get("type")
        self._begun |= kind != "dropped"
        method = _METHODS.get(str(kind))
        if method is not None:
            method(self, record, number(record, "vcpu", 0) % MAX_CPUS)

    def end(self) -> None:
        """The trace is over."""
        for vcpu in list(self._open):
            self._close(vcpu)
        for lane in list(self._handlers):
            self._end_handler(lane)

    # ---- calls -------------------------------------------------------------------------------------------------------

    def call(self, record: Mapping[str, Any], vcpu: int) -> None:
        """A call begins a step."""
        self._close(vcpu)
        self._newest = vcpu
        function = str(record.get("function"))[:MAX_TEXT]
        self.run.functions[function] += 1
        if len(self.run.functions) > MAX_KINDS:
            raise FullError
        arguments = record.get("args")
        arguments = arguments if isinstance(arguments, dict) else {}
        open_ = _Open(self._lane(vcpu), function, self._kind(function, arguments), *_place(record), vcpu)
        self._answer(open_, record)
        open_.answered = record.get("answered") is not False
        open_.in_context = bool(self._stack[vcpu]) and number(arguments, "index", -1) in range(_CONTEXT_REGISTERS)
        event = arguments.get("event")
        if type(event) is int:
            open_.state = self._states.get((event, OWN if event in self._shared else vcpu))
        self._open[vcpu] = open_

    def _kind(self, function: str, arguments: Mapping[str, Any]) -> int:
        if "addresses" in self._folds and "x1" in arguments:
            # Whatever was left in the registers: how many of them are arguments nobody knows.
            return self._words.kind(function, f"{function}(..)", anywhere=True)
        if "moments" in self._folds and function in _COMPLETIONS:
            # Linux chooses by what it has interrupted.
            return self._words.kind("SDEI_EVENT_COMPLETE", "SDEI_EVENT_COMPLETE or _AND_RESUME")
        shown = (f"{name}={self._argument(name, value)}" for name, value in list(arguments.items())[:8])
        anywhere = function in _ANYWHERE or arguments.get("event") in self._shared
        return self._words.kind(function, f"{function}({', '.join(shown)})", anywhere=anywhere)

    def _argument(self, name: str, value: object) -> str:
        if "addresses" in self._folds and name in _ADDRESSES:
            return "*" if value else "0"
        return f"{value:#x}" if type(value) is int else str(value)[:32]

    def _answer(self, open_: _Open, record: Mapping[str, Any]) -> None:
        result = record.get("result")
        open_.result = result if type(result) is int else None
        named = record.get("result_name")
        open_.named = named if isinstance(named, str) else None
        open_.then = str(record.get("then"))

    def frame(self, record: Mapping[str, Any], vcpu: int) -> None:
        """Something else brought the vCPU to the firmware."""
        self._newest = vcpu
        kind = str(record.get("kind"))
        if kind == "operations":
            waiting = self._open.get(vcpu)
            if waiting is not None and record.get("call") == waiting.number:
                self._answer(waiting, record)
            return
        self._close(vcpu)
        if kind in _FAULTS:
            vector, esr = number(record, "vector", 0), number(record, "esr", 0)
            self._event(record, vcpu, f"{kind}: vector {vector:#x}, ESR {esr:#x}")

    def _close(self, vcpu: int) -> None:
        """Nothing more comes of a vCPU's call."""
        call = self._open.pop(vcpu, None)
        if call is None:
            return
        result, known = self._result(call)
        self.run.registered |= call.function == "SDEI_EVENT_REGISTER" and call.result == 0
        clause = ""
        if call.result is not None and call.named is not None and result != _VALUE:
            clause = clause_of_answer(call.function, call.result, call.state)
        outcome = self._words.outcome(Outcome(result, known, tuple(call.effects), clause))
        if "idle" in self._folds and call.function in _IDLE:
            self.run.idle[call.vcpu, call.kind][outcome] += 1
            return
        self._add(call.lane, call.kind, outcome, call.number, call.time, poll=call.function in _POLLS)

    def _result(self, call: _Open) -> tuple[str, bool]:
        if not call.answered:
            return "no answer", True
        if call.result is None:
            # Whether it ended in a handler is chance, and told by the handler's own sequence.
            return (call.then, True) if call.then in ("parks", "waits") else ("", False)
        is_value = call.in_context or (call.function != _CONTEXT and (call.named is None or call.result >= 0))
        if "values" in self._folds and call.function in _VALUES and is_value:
            return _VALUE, True
        return call.named or (f"{call.result:#x}" if call.result > 9 else str(call.result)), True

    def counted(self, record: Mapping[str, Any], vcpu: int) -> None:
        """Calls that were only counted."""
        function = str(record.get("function"))[:MAX_TEXT]
        count = max(number(record, "count", 0), 0)
        self.run.counted[vcpu, function] += count
        self.run.functions[function] += count
        if len(self.run.counted) > MAX_KINDS:
            raise FullError

    # ---- what else happens -------------------------------------------------------------------------------------------

    def transition(self, record: Mapping[str, Any], vcpu: int) -> None:
        """An event's state changes: the doing of whichever vCPU is in the firmware."""
        self.run.shows_states = True
        event, cause = number(record, "event", -1), str(record.get("cause"))
        old, new = (str(record.get(side))[:40] for side in ("from", "to"))
        self._states[event, OWN if event in self._shared else vcpu] = _STATES.get(new, UNREGISTERED)
        if len(self._states) > MAX_KINDS:
            raise FullError
        if cause not in _NOT_EFFECTS and self._newest is not None:
            call = self._open.get(self._newest)
            if call is not None and len(call.effects) < MAX_CPUS:
                where = "" if vcpu == call.vcpu or event in self._shared else f" on vCPU {vcpu}"
                call.effects.append(f"event {event:#x}{where}: {old} -> {new}")
        if cause == "DISPATCH":
            self._stack[vcpu].append(event)
            if len(self._stack[vcpu]) > MAX_CPUS:
                del self._stack[vcpu][0]
            lane = self._lane(vcpu)
            if lane[1] != OWN:
                self._end_handler(lane)
                self._handlers[lane] = []
            self._event(record, vcpu, f"handler of event {event:#x} begins", close=False)
        elif cause == "COMPLETE" and event in self._stack[vcpu]:
            self._close(vcpu)
            del self._stack[vcpu][self._stack[vcpu].index(event) :]
            self._end_handler((vcpu, event))

    def power(self, record: Mapping[str, Any], vcpu: int) -> None:
        """A vCPU's power changes."""
        states = (record.get("from"), record.get("to"))
        if "idle" in self._folds and "suspended" in states:
            return
        self._event(record, vcpu, f"power: {str(states[1])[:40]}", close=False)

    def boot(self, record: Mapping[str, Any], vcpu: int) -> None:
        """The machine was reset."""
        self.end()
        self._stack.clear()
        self._states.clear()
        self._runs.clear()
        self._event(record, vcpu, "the machine is reset")

    def kernel(self, record: Mapping[str, Any], vcpu: int) -> None:
        """Another kernel has begun."""
        self._event(record, vcpu, f"kernel {number(record, 'kernels', 0)} begins since the reset", close=False)

    def reject(self, record: Mapping[str, Any], vcpu: int) -> None:
        """Something was not as it must be."""
        self._event(record, vcpu, "rejected: " + _NUMBER.sub("*", str(record.get("why"))[:MAX_TEXT]), close=False)

    def trigger(self, record: Mapping[str, Any], vcpu: int) -> None:
        """An input of this run."""
        event, by = number(record, "event", -1), record.get("by")
        self._aside(f"trigger of event {event:#x} by {'an interrupt' if by == 'interrupt' else 'the host'}")

    def undelivered(self, record: Mapping[str, Any], vcpu: int) -> None:
        """Something waits."""
        self._aside(
            f"event {number(record, 'event', -1):#x} was not delivered at once: {str(record.get('reason'))[:40]}"
        )

    def dropped(self, record: Mapping[str, Any], vcpu: int) -> None:
        """Records are missing: what was open may have ended."""
        count = max(number(record, "count", 1), 1)
        if not self._begun:
            self.run.before += count
            return
        self.run.missing += count
        self.end()
        self._stack.clear()

    def _aside(self, text: str) -> None:
        if len(self.run.asides) < MAX_KINDS:
            self.run.asides[text] += 1

    # ---- lanes -------------------------------------------------------------------------------------------------------

    def _lane(self, vcpu: int) -> LaneKey:
        stack = self._stack[vcpu]
        return (vcpu, stack[-1] if stack and "moments" in self._folds else OWN)

    def _event(self, record: Mapping[str, Any], vcpu: int, text: str, *, close: bool = True) -> None:
        """A step that is no call."""
        if close:
            self._close(vcpu)
        outcome = self._words.outcome(Outcome("", True, (), ""))
        lane = self._lane(vcpu)
        if not text.startswith("handler"):
            lane = (vcpu, OWN)
        self._add(lane, self._words.kind("", text), outcome, *_place(record), poll=False)

    def _add(self, key: LaneKey, kind: int, outcome: int, number: int, time: int, *, poll: bool) -> None:
        run = self._handlers.get(key)
        if run is not None:
            run.append((kind, outcome, number, time))
            if len(run) >= _MAX_RUN:
                self._emit(key, self._handlers.pop(key))
            return
        self._put(key, kind, outcome, number, time, poll=poll)

    def _put(self, key: LaneKey, kind: int, outcome: int, number: int, time: int, *, poll: bool = False) -> None:
        lane = self.run.lanes.setdefault(key, Lane())
        if "repeats" in self._folds and lane and lane.kinds[-1] == kind and (poll or lane.outcomes[-1] == outcome):
            lane.in_a_row[-1] += 1
            lane.outcomes[-1] = outcome
            return
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise FullError
        lane.add(kind, outcome, number, time)

    def _end_handler(self, key: LaneKey) -> None:
        """A run of a handler is over: one that was there already is counted only."""
        steps = self._handlers.pop(key, None)
        if not steps:
            return
        shape = tuple((kind, outcome) for kind, outcome, _, _ in steps)
        if "repeats" in self._folds and (begin := self._runs.get((key, shape))) is not None:
            self.run.lanes[key].in_a_row[begin] += 1
            return
        self._runs[key, shape] = len(self.run.lanes.get(key, ()))
        self._emit(key, steps)

    def _emit(self, key: LaneKey, steps: list[tuple[int, int, int, int]]) -> None:
        lane = self.run.lanes.setdefault(key, Lane())
        for step in steps:
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise FullError
            lane.add(*step)


def number(record: Mapping[str, Any], name: str, default: int) -> int:
    """A field that is a number; `default` if it is none: a trace may come from anywhere."""
    value = record.get(name)
    return value if type(value) is int else default


def _place(record: Mapping[str, Any]) -> tuple[int, int]:
    return number(record, "n", 0), number(record, "at_ns", number(record, "time_ns", 0))


_METHODS: Final = {
    name: getattr(_Maker, name)
    for name in (
        *("call", "frame", "counted", "transition", "power", "boot", "kernel", "reject"),
        *("trigger", "undelivered", "dropped"),
    )
}
