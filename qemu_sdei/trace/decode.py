"""From the raw words of a slot to a record: what the trace says, for people and programs.

The words may be a guest's: whatever they are, a record comes of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from qemu_sdei.monitor.layout import COUNTER_SINCE, AnswerFlag, Kind, Word
from qemu_sdei.sdei.constants import Function
from qemu_sdei.sdei.transitions import ROWS, STATE_NAMES, STATES, STEP, UNREGISTERED, Action
from qemu_sdei.services.function_names import function_name
from qemu_sdei.smccc.ids import FUNCTION_MASK
from qemu_sdei.trace.arguments import arguments_of, result_name
from qemu_sdei.trace.slots import CAUSES, IGNORED, MAX_TEXT, NO_VCPU, TEXT_FIRST, TEXT_MORE, At, Outcome, Type

Record = dict[str, Any]
"""A record, as docs/reference/trace.md has it."""

_KINDS: Final[dict[int, str]] = {
    Kind.RESET: "reset",
    Kind.KICK: "kick",
    Kind.OPS: "operations",
    Kind.EXCEPTION: "exception",
    Kind.FAULT: "fault",
    Kind.BAD_ANSWER: "bad-answer",
    Kind.INTERRUPT: "interrupt",
}
_CLAUSES: Final = {(Action(row.action).name, state): row.source for row in ROWS for state in row.states}
_RESET_CLAUSE: Final = "DEN0054 6.5.2: a reset of the machine leaves no event registered"
_COMPLETIONS: Final = frozenset((Function.EVENT_COMPLETE, Function.EVENT_COMPLETE_AND_RESUME))
"""Calls that go on where their event's handler interrupted, which may be another handler."""
_X0: Final = At.DATA + Word.X0 - Word.KIND
_PC: Final = At.DATA + Word.PC - Word.KIND
_PSTATE: Final = At.DATA + Word.PSTATE - Word.KIND
_VECTOR: Final = At.DATA + Word.VECTOR - Word.KIND
_FUNCTION: Final = At.DATA + Word.FUNCTION - Word.KIND
_ESR: Final = At.DATA + Word.ESR_EL3 - Word.KIND
_AS_THEY_ARE: Final = frozenset(
    (
        *("reject", "backend", "migration", "injection", "ras", "notification", "undelivered", "trigger"),
        *("misbehaved", "firmware", "priorities"),
    )
)
"""Notes whose names are types of records, with the fields that they have."""
_OWN: Final = frozenset(("n", "type", "vcpu", "time_ns", "counter", "pc", "at_ns", "at_error_ns"))


def clause_of(cause: str, state: int) -> str:
    """The rule by which an event in `state` changed: a row of the state table; "" if there is none."""
    return _RESET_CLAUSE if cause == "RESET" else _CLAUSES.get((cause, state), "")


class Decoder:
    """Makes records of slots, in their order: some need what came before (the rest of a text, a power state)."""

    def __init__(self, monitor: int) -> None:
        """`monitor`: version of the frame window of the guest's monitor: an old one tells no counter."""
        self._counts = monitor >= COUNTER_SINCE
        self._power: dict[int | None, str] = {}
        self._text: tuple[Record, int, bytearray] | None = None
        self._counter: dict[int, int | None] = {}
        """Of each vCPU: its counter in the newest frame, for what follows from it."""
        self._calls: dict[int | None, tuple[str, int]] = {}
        """Of each vCPU: function and number of the call that waits for micro-operations."""

    def records(self, slot: Sequence[int]) -> list[Record]:
        """The records of a slot; none if it goes on in the next one, or is none. Their numbers are twice the slot's,
        and one more for a transition that came of a call.
        """
        tag = slot[At.TAG]
        kind = tag & 0xFF
        vcpu: int | None = tag >> 8 & 0xFFF
        if vcpu == NO_VCPU:
            vcpu = None
        if kind == Type.MORE:
            return self._more(slot)
        self._text = None
        head: Record = {"n": (tag >> 20) * 2, "type": "", "vcpu": vcpu, "time_ns": slot[At.TIME], "counter": None}
        if kind in (Type.FRAME, Type.STAMPED):
            return self._frame(head if kind == Type.STAMPED else {**head, "time_ns": None}, slot)
        if kind == Type.TRANSITION:
            head["counter"] = None if vcpu is None else self._counter.get(vcpu)
            return [_transition(head, slot[At.DATA])]
        if kind == Type.TRIGGER:
            return [_trigger(head, slot)]
        if kind == Type.COUNTED:
            function = slot[At.DATA]
            counted = {"function": function_name(function & FUNCTION_MASK), "id": function}
            return [{**head, "type": "counted", **counted, "count": slot[At.DATA + 1], "since_ns": slot[At.DATA + 2]}]
        return self._begin_text(head, slot) if kind == Type.TEXT else []

    def _frame(self, head: Record, slot: Sequence[int]) -> list[Record]:
        vcpu = head["vcpu"]
        counter = (slot[At.COUNTER] or None) if self._counts else None
        head["counter"] = self._counter[vcpu] = counter
        pc, pstate, answered = slot[_PC], slot[_PSTATE], slot[At.ANSWER] & 0xFFFF != IGNORED
        kind = slot[At.DATA]
        registers = [int(word) for word in slot[_X0 : _X0 + 6]]
        where = {"pc": pc, "pstate": pstate, "el": pstate >> 2 & 3 if not pstate & 0x10 else 0, "x": registers}
        if kind != Kind.SMC:
            record = {**head, "type": "frame", "kind": _KINDS.get(kind, f"{kind:#x}"), **where}
            if kind == Kind.INTERRUPT:
                record["intid"] = slot[_VECTOR]
            elif kind in (Kind.EXCEPTION, Kind.FAULT, Kind.BAD_ANSWER):
                record |= {"vector": slot[_VECTOR], "esr": slot[_ESR]}
            then = _then(slot, pc) if answered else None
            if kind == Kind.OPS and vcpu in self._calls:
                record |= self._of_call(vcpu, slot, then)
            elif then == "returns":
                then = "resumes"
            return [{**record, "answered": answered, "then": then, "next_pc": slot[At.OUTCOME] if answered else None}]
        function = slot[_FUNCTION]
        name = function_name(function & FUNCTION_MASK)
        record = {**head, "type": "call", "function": name, "id": function, **where}
        record |= {"args": arguments_of(name, registers[1:]), "answered": answered}
        result = then = None
        if answered:
            then = _then(slot, pc)
            if then == "operations":
                self._calls[vcpu] = name, head["n"]
            if then == "handler" and function & FUNCTION_MASK in _COMPLETIONS:
                then = "resumes"
            if then in ("returns", "waits") and slot[At.OUTCOME] == pc:
                result = _signed(slot[At.OUTCOME + 2])
        record |= {"result": result, "result_name": None if result is None else result_name(name, result)}
        call = {**record, "then": then, "next_pc": slot[At.OUTCOME] if answered else None}
        word = slot[At.ANSWER]
        if not word >> 24 & 0xFF:
            return [call]
        return [call, _transition({**head, "n": head["n"] + 1}, word)]

    def _of_call(self, vcpu: int | None, slot: Sequence[int], then: str | None) -> Record:
        """What a frame that brings results of micro-operations has of the call that asked for them."""
        name, number = self._calls[vcpu]
        result = _signed(slot[At.OUTCOME + 2]) if then == "returns" else None
        if then is not None and then != "operations":
            del self._calls[vcpu]
        named = None if result is None else result_name(name, result)
        return {"function": name, "call": number, "result": result, "result_name": named}

    # ---- texts -------------------------------------------------------------------------------------------------------

    def _begin_text(self, head: Record, slot: Sequence[int]) -> list[Record]:
        length = slot[At.DATA]
        data = bytearray(_bytes(slot, At.DATA + 1)[: min(length, TEXT_FIRST)])
        if length > TEXT_FIRST:
            self._text = (head, min(length, MAX_TEXT), data)
            return []
        return [self._finish(head, data)]

    def _more(self, slot: Sequence[int]) -> list[Record]:
        if self._text is None:
            return []
        head, length, data = self._text
        data += _bytes(slot, At.DATA)[: min(TEXT_MORE, length - len(data))]
        if len(data) < length:
            return []
        self._text = None
        return [self._finish(head, data)]

    def _finish(self, head: Record, data: bytearray) -> Record:
        try:
            details = json.loads(bytes(data))
        except (ValueError, RecursionError):
            details = None
        if not isinstance(details, dict) or not isinstance(details.get("name"), str):
            return {**head, "type": "note", "name": "damaged"}
        name = details.pop("name")
        details = {key: value for key, value in details.items() if key not in _OWN}
        if name == "power":
            state = str(details.pop("state", "?"))
            before, self._power[head["vcpu"]] = self._power.get(head["vcpu"]), state
            return {**head, "type": "power", "from": before, "to": state, **details}
        if name == "reset":
            self._power.clear()
            return {**head, "type": "boot", "vcpu": None, **details}
        if name == "kernel":
            return {**head, "type": "kernel", "kernels": details.get("kernel")}
        if name == "trigger" and details.get("by") == "host":
            head["counter"] = None
        if name in _AS_THEY_ARE:
            return {**head, "type": name, **details}
        return {**head, "type": "note", "name": name, **details}


def _transition(head: Record, word: int) -> Record:
    event, number, old = word >> 32, word >> 24 & 0xFF, word >> 16 & 0xFF
    cause = CAUSES[number - 1] if 0 < number <= len(CAUSES) else f"{number:#x}"
    new = STEP[Action[cause]][old][1] if cause in Action.__members__ and old < len(STATES) + 2 else UNREGISTERED
    return {
        **head,
        "type": "transition",
        "event": event,
        "from": STATE_NAMES.get(old, f"{old:#x}"),
        "to": STATE_NAMES.get(new, f"{new:#x}"),
        "cause": cause,
        "clause": clause_of(cause, old),
    }


def _trigger(head: Record, slot: Sequence[int]) -> Record:
    event, outcome = slot[At.DATA : At.DATA + 2]
    return {
        **head,
        "type": "trigger",
        "event": event,
        "by": "host",
        "outcome": "merged" if outcome == Outcome.MERGED else "pending",
        "why": None,
    }


def _then(slot: Sequence[int], pc: int) -> str:
    """What the vCPU does after the answer."""
    flags = slot[At.ANSWER] & 0xFFFF
    if flags & AnswerFlag.REPOST:
        return "operations"
    if flags & AnswerFlag.PARK:
        return "parks"
    if flags & AnswerFlag.WFI:
        return "waits"
    if flags & AnswerFlag.ALL:
        return "starts"
    return "returns" if slot[At.OUTCOME] == pc else "handler"


def _bytes(slot: Sequence[int], first: int) -> bytes:
    return b"".join(int(word).to_bytes(8, "little") for word in slot[first:])


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
