"""Answers in words, and the rule that ours follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qemu_sdei.differential.allowed import Place, signed
from qemu_sdei.differential.answers import BACK, CHECK, LEFT, STAGES, Record
from qemu_sdei.differential.judge import Difference, Verdict
from qemu_sdei.differential.sequence import Script, described, function_name
from qemu_sdei.sdei.constants import CODE_NAMES
from qemu_sdei.sdei.transitions import STATE_NAMES, UNREGISTERED
from qemu_sdei.trace.clauses import clause_of_answer, section_of

_PSCI_NAMES: Final = {
    0: "SUCCESS",
    -1: "NOT_SUPPORTED",
    -2: "INVALID_PARAMETERS",
    -3: "DENIED",
    -4: "ALREADY_ON",
    -5: "ON_PENDING",
    -6: "INTERNAL_FAILURE",
    -7: "NOT_PRESENT",
    -8: "DISABLED",
    -9: "INVALID_ADDRESS",
}
_EVENTS: Final = {0xB000_0000: "the bound PPI", 0xB000_0001: "the bound SPI", 0xB000_000F: "another bound interrupt"}
_DELIVERY: Final = (
    "DEN0054 6.1, 6.2.1: an event that is pending, enabled and not running is delivered to an unmasked PE"
)
_PRIORITY: Final = (
    "DEN0054 5.1.6, 6.5.4; IHI 0069 (GICv3) 4.8: a handler that has ended, also by CPU_OFF, leaves no interrupt active "
    "at the GIC's CPU interface"
)
_POWER: Final = "DEN0054 6.5.1, 6.5.2; DEN0022 6.4: a CPU that comes up begins as after a reset"
_CLAUSES: Final = {
    "h": f"{_DELIVERY}; its context: 5.2.1",
    "i": _PRIORITY,
    "p": _PRIORITY,
    "u": _POWER,
    "d": "DEN0022 5.1.3; in a handler: DEN0054 6.5.4",
    "n": "DEN0022 5.1.4",
    "q": "DEN0054 5.1.6, 5.1.7: COMPLETE and COMPLETE_AND_RESUME in a handler do not return",
    "z": "DEN0054 5.2.2: COMPLETE_AND_RESUME enters the client as an exception would",
    "x": "DEN0054 5.2.1, 5.2.2: a client is entered at the address that it gave, in its own state",
    "w": "DEN0054 5.1: each call returns, or its handler begins",
    "j": "DEN0054 5.1.16",
}


def at_place(script: Script, place: Place) -> str:
    """When and where: "step 3 (CPU 1: SDEI_EVENT_SIGNAL(...)), on CPU 1"."""
    if place.step < len(script.steps):
        step = script.steps[place.step]
        where = f"step {place.step + 1} (CPU {step.cpu}: {described(step.op)})"
        return where if place.cpu == step.cpu else f"{where}, on CPU {place.cpu}"
    return f"{STAGES.get(place.step, 'somewhere')}, on CPU {place.cpu}"


def _code(value: int, names: Mapping[int, str]) -> str:
    number = signed(value)
    if number in names:
        return names[number]
    return str(number) if -1 << 16 < number < 10 else f"{value:#x}"


def _event(value: int) -> str:
    return _EVENTS.get(value, f"event {value:#x}")


def _of_call(script: Script, record: Record) -> str:
    ops = script.ops()
    op = ops[record.op] if record.op < len(ops) else None
    name = "CPU_OFF" if op is None or op.operands == () else function_name(op.function)
    if name == "SDEI_INTERRUPT_BIND" and record.a in _EVENTS:
        answer = "an event number"
    elif name == "SDEI_EVENT_CONTEXT" and signed(record.a) >= 0:
        answer = ("not the value that was interrupted", "the value that was interrupted", "a value")[min(record.a, 2)]
    else:
        answer = _code(record.a, CODE_NAMES if name.startswith("SDEI_") else _PSCI_NAMES)
    changed = [f"x{n}" for n in range(4, 31) if record.b >> n & 1]
    changed += [word for bit, word in ((31, "the flags"), (32, "SP")) if record.b >> bit & 1]
    return f"{name}: {answer}" + (f"; it changed {', '.join(changed)}" if changed else "")


def told(script: Script, record: Record) -> str:
    """What a record says."""
    kind, a, b, c = record.kind, record.a, record.b, record.c
    if kind == "c":
        return _of_call(script, record)
    if kind == "h":
        program = "a handler of nobody's" if b >> 32 == 0xFF else f"h{b >> 32}"
        return f"{program} begins for {_event(a)} (PSTATE {c:#x}, interrupted {b & 0xFFFF_FFFF:#x})"
    if kind == "i":
        return f"{'takes' if a else 'does not take'} its timer interrupt (running priority {b:#x})"
    if kind == "p":
        return f"{_able((bool(a), bool(b)))} (running priority {c:#x})"
    if kind == "k":
        name = "SDEI_SHARED_RESET" if b else "SDEI_PRIVATE_RESET"
        return f"{name}: {_code(a, CODE_NAMES)}"
    if kind == "n":
        return f"CPU_ON for CPU {b}: {_code(a, _PSCI_NAMES)}"
    if kind == "q":
        return f"COMPLETE or COMPLETE_AND_RESUME in a handler came back: {_code(a, CODE_NAMES)}"
    if kind == "x":
        return f"a failure of the guest at vector {b}" if a else f"an exception of class {c:#x} at vector {b}"
    if kind == "j":
        return f"the injection was {'done' if a else 'refused'}"
    return {
        "u": f"comes up (running priority {b:#x})",
        "d": "is off",
        "s": "left out: the CPU is off, or in a handler that it left",
        "w": "nothing is heard of it any more",
        "z": f"is resumed (PSTATE {c:#x})",
    }.get(kind, kind)


def answer(script: Script, record: Record | None, end: str) -> str:
    """One side of a difference."""
    if record is None:
        return end or "nothing"
    return told(script, record)


def clause(verdict: Verdict, trace: Sequence[Mapping[str, Any]] = ()) -> str:
    """The rule that ours follows, where they part. `trace`: ours of a guest that did this sequence and nothing else."""
    first = verdict.first
    if first is None:
        return ""
    record = first.ours or first.theirs
    if record is None:
        return _CLAUSES["w"]
    if record.kind == "c":
        return _of_answer(verdict, record, trace)
    if record.kind == "k":
        return section_of("SDEI_SHARED_RESET" if record.b else "SDEI_PRIVATE_RESET")
    return _CLAUSES.get(record.kind, "")


def _of_answer(verdict: Verdict, record: Record, trace: Sequence[Mapping[str, Any]]) -> str:
    first = verdict.first
    assert first is not None
    ops = verdict.script.ops()
    op = ops[record.op] if record.op < len(ops) else None
    name = "CPU_OFF" if op is None or not op.operands else function_name(op.function)
    if first.ours is None:
        return f"{_DELIVERY}; {section_of(name)}"
    if first.theirs is not None and first.theirs.kind == "c" and first.theirs.a == first.ours.a:
        return "DEN0028 (SMCCC) 2.6: a call preserves x4 to x17 and all that follow" + (
            f"; {section_of(name)}" if section_of(name) else ""
        )
    if first.theirs is not None and first.theirs.kind == "h":
        return _CLAUSES["h"]
    result = signed(record.a)
    return clause_of_answer(name, result, _state(name, record, result, trace))


def _state(name: str, record: Record, result: int, trace: Sequence[Mapping[str, Any]]) -> int | None:
    """The state that the event was in, if all calls of the trace that can be meant agree."""
    states: dict[tuple[object, object], object] = {}
    found = set()
    for entry in trace:
        if entry.get("type") == "transition":
            states[entry.get("event"), entry.get("vcpu")] = entry.get("to")
        elif entry.get("type") == "call" and (entry.get("vcpu"), entry.get("function"), entry.get("result")) == (
            record.cpu,
            name,
            result,
        ):
            event = entry.get("args", {}).get("event")
            found.add(states.get((event, record.cpu), STATE_NAMES[UNREGISTERED]))
    state = found.pop() if len(found) == 1 else None
    return next((number for number, known in STATE_NAMES.items() if known == state), None)


def health(verdict: Verdict) -> list[str]:
    """What the CPUs of each side can do at the end, where that differs."""
    lines = []
    ours, theirs = verdict.ours.health(), verdict.theirs.health()
    for cpu in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(cpu), theirs.get(cpu)
        if a != b:
            lines.append(f"CPU {cpu} at the end: ours {_able(a)}; theirs {_able(b)}")
    return lines


def _able(able: tuple[bool, bool] | None) -> str:
    if able is None:
        return "was not reached"
    words = [word for word, yes in zip(("interrupts", "events"), able, strict=True) if yes]
    return f"takes {' and '.join(words)}" if words else "takes neither interrupts nor events"


def stage(difference: Difference) -> str:
    """For programs: "step", "left", "put back", "check"."""
    return {LEFT: "left", BACK: "put back", CHECK: "check"}.get(difference.place.step, "step")
