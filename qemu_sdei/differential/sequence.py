"""Sequences of calls as data: the form that the guest of `guest/compare` reads, one for people, and what is in which.

A sequence is steps, one CPU after the other, and programs: what a handler does the first time that it runs on a CPU.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.sdei.constants import Function as Sdei
from qemu_sdei.services.psci import Function as Psci

MAX_OPS: Final = 64
MAX_PROGRAMS: Final = 8
MAX_OPERANDS: Final = 6
MAX_CPUS: Final = 16
MAX_LINE: Final = 2000
SMC64: Final = 1 << 30

CALL, TIMER, FIRE, OFF, INJECT = "ctfoj"
COMPLETE, RESUME, LEAVE = "erl"
ENDINGS: Final = frozenset((COMPLETE, RESUME, OFF, LEAVE))
STEPS: Final = frozenset((CALL, TIMER, FIRE, OFF, INJECT))
_OPERAND: Final = re.compile(r"([ABHLPRSX])([0-9a-f]{1,16})")
_OP: Final = re.compile(r"([0-9a-f]?)([a-z])((?:[A-Z][0-9a-f]{1,16})?(?:,[A-Z][0-9a-f]{1,16})*)")
_NARROW: Final = {int(f): f"SDEI_{f.name}" for f in Sdei} | {int(f): f.name for f in Psci}
_ARGUMENTS: Final[dict[str, tuple[str, ...]]] = {
    "SDEI_EVENT_REGISTER": ("event", "entry", "argument", "flags", "affinity"),
    "SDEI_EVENT_ENABLE": ("event",),
    "SDEI_EVENT_DISABLE": ("event",),
    "SDEI_EVENT_CONTEXT": ("register",),
    "SDEI_EVENT_COMPLETE": ("status",),
    "SDEI_EVENT_COMPLETE_AND_RESUME": ("address",),
    "SDEI_EVENT_UNREGISTER": ("event",),
    "SDEI_EVENT_STATUS": ("event",),
    "SDEI_EVENT_GET_INFO": ("event", "info"),
    "SDEI_EVENT_ROUTING_SET": ("event", "mode", "affinity"),
    "SDEI_INTERRUPT_BIND": ("intid",),
    "SDEI_INTERRUPT_RELEASE": ("event",),
    "SDEI_EVENT_SIGNAL": ("event", "target"),
    "SDEI_FEATURES": ("feature",),
    "CPU_ON": ("target", "entry", "context"),
    "AFFINITY_INFO": ("target", "level"),
    "CPU_SUSPEND": ("state", "entry", "context"),
    "PSCI_FEATURES": ("function",),
}


@dataclass(frozen=True, order=True, slots=True)
class Operand:
    """One argument: its kind (`guest/compare/main.c`) and its number."""

    kind: str
    value: int

    def __str__(self) -> str:
        return f"{self.kind}{self.value:x}"


@dataclass(frozen=True, order=True, slots=True)
class Op:
    """One thing that a CPU does."""

    what: str
    operands: tuple[Operand, ...] = ()

    def __str__(self) -> str:
        return self.what + ",".join(map(str, self.operands))

    @property
    def function(self) -> int:
        """Of a call its function id, else -1."""
        return self.operands[0].value if self.what == CALL else -1


@dataclass(frozen=True, slots=True)
class Step:
    """A CPU and what it does."""

    cpu: int
    op: Op


@dataclass(frozen=True, slots=True)
class Program:
    """What a handler does, and how it ends."""

    ops: tuple[Op, ...] = ()
    ending: Op = Op(COMPLETE)


@dataclass(frozen=True, slots=True)
class Script:
    """A sequence: steps in their order, and the programs that they register handlers with."""

    steps: tuple[Step, ...]
    programs: tuple[Program, ...] = ()

    def words(self) -> str:
        """Without its number and its sum: what is kept in files."""
        words = [f"{step.cpu:x}{step.op}" for step in self.steps]
        for number, program in enumerate(self.programs):
            words += [f"={number:x}", *map(str, program.ops), str(program.ending)]
        return " ".join(words)

    def line(self, number: int) -> str:
        """What is typed at the guest's console."""
        text = f"#{number:x} {self.words()}"
        return f"{text} ~{checksum(text):x}\n"

    @property
    def calls(self) -> int:
        """Calls to the firmware in it, those of handlers and their endings too."""
        ops = [step.op for step in self.steps] + [op for program in self.programs for op in program.ops]
        ends = [program.ending for number, program in enumerate(self.programs) if number in self.used()]
        return sum(op.what in (CALL, OFF) for op in ops) + sum(end.what != LEAVE for end in ends)

    def ops(self) -> tuple[Op, ...]:
        """By the numbers that records have: those of the steps, then those of the programs (without endings)."""
        return (*(step.op for step in self.steps), *(op for program in self.programs for op in program.ops))

    def used(self) -> frozenset[int]:
        """Numbers of the programs that something refers to."""
        found = {o.value for op in self.ops() for o in op.operands if o.kind == "P"}
        return frozenset(number for number in found if number < len(self.programs))

    def check(self, cpus: int = MAX_CPUS) -> Script:
        """Itself. Raises `UsageError`: the guest would not take it, or would be lost by it."""
        ops = self.ops()
        if not self.steps or len(ops) > MAX_OPS or len(self.programs) > MAX_PROGRAMS or len(self.words()) > MAX_LINE:
            raise UsageError(f"a sequence has 1 to {MAX_OPS} operations in at most {MAX_PROGRAMS} programs")
        for step in self.steps:
            if not 0 <= step.cpu < cpus:
                raise UsageError(f"a sequence for CPU {step.cpu}: the machine has CPU 0 to {cpus - 1} (--smp)")
            if step.op.what == OFF and step.cpu == 0:
                raise UsageError("a sequence that switches CPU 0 off: that one reads the sequences")
            if step.op.what == INJECT and step.cpu:
                raise UsageError("an injection is asked for by CPU 0")
        for op in ops:
            if op.what not in STEPS or (op.what == CALL) > len(op.operands) or len(op.operands) > MAX_OPERANDS:
                raise UsageError(f"{op}: no operation that a sequence can have")
            if op.what == CALL and (op.operands[0].kind != "L" or is_deadly(op.function)):
                raise UsageError(f"{op}: a call that ends the guest, or of no function")
        if any(op.what in (OFF, INJECT) for program in self.programs for op in program.ops):
            raise UsageError("a handler can go off at its end only, and not ask for injections")
        if any(program.ending.what not in ENDINGS for program in self.programs):
            raise UsageError("a handler ends with COMPLETE, COMPLETE_AND_RESUME, CPU_OFF, or by leaving")
        return self


def is_deadly(function: int) -> bool:
    """Calls by which a guest, or the CPU that makes it, is gone."""
    narrow = function & 0xFFFF_FFFF & ~SMC64 & ~(1 << 16)
    deadly = {Psci.SYSTEM_OFF, Psci.SYSTEM_RESET, Psci.SYSTEM_RESET2, Psci.CPU_OFF, Psci.SYSTEM_SUSPEND}
    return narrow in {int(f) & ~SMC64 for f in (*deadly, Psci.CPU_SUSPEND)} or narrow in (0x8400_000C, 0x8400_0015)


def checksum(text: str) -> int:
    """As `guest/compare` has it."""
    total = 0
    for byte in text.encode(errors="replace"):
        total = (total * 31 + byte) & 0xFFFF
    return total


def parse(words: str, cpus: int = MAX_CPUS) -> Script:
    """The script of `Script.words`. Raises `UsageError`: it is none."""
    steps: list[Step] = []
    programs: list[Program] = []
    behind: list[Op] | None = None
    if len(words) > MAX_LINE:
        raise UsageError(f"a sequence of {len(words)} characters: {MAX_LINE} is the most")
    for word in words.split():
        if word == f"={len(programs):x}" and behind is None:
            behind = []
            continue
        found = _OP.fullmatch(word)
        if found is None or bool(found[1]) == (behind is not None or bool(programs)):
            raise UsageError(f"{word!r} is not a step of a sequence")
        op = Op(found[2], tuple(Operand(kind, int(value, 16)) for kind, value in _OPERAND.findall(found[3])))
        if behind is None:
            steps.append(Step(int(found[1], 16), op))
        elif op.what in ENDINGS:
            programs.append(Program(tuple(behind), op))
            behind = None
        else:
            behind.append(op)
    if behind is not None:
        raise UsageError("a handler of a sequence has no end")
    return Script(tuple(steps), tuple(programs)).check(cpus)


# ---- for people ------------------------------------------------------------------------------------------------------


def function_name(function: int) -> str:
    """`SDEI_EVENT_SIGNAL`; of what nobody has assigned the number."""
    known = _NARROW.get(function) or _NARROW.get(function & ~SMC64)
    return known or f"{function:#x}"


def _shown(operand: Operand) -> str:
    value = operand.value
    behind = f"+{value:#x}" if value else ""
    return {
        "A": f"CPU {value}" if value < MAX_CPUS else "no CPU",
        "B": ("the PPI's", "the SPI's")[value] if value < 2 else f"bound {value}",
        "H": f"handler{behind}",
        "P": f"h{value}",
        "R": f"resume{behind}",
        "S": f"start{behind}",
        "X": f"no address{behind}",
    }.get(operand.kind, f"{value:#x}" if value > 9 else str(value))


def described(op: Op) -> str:
    """`SDEI_EVENT_SIGNAL(event=0, target=CPU 1)`."""
    rest = op.operands
    if op.what == CALL:
        name = function_name(op.function)
        names = _ARGUMENTS.get(name, ())
        shown = [f"{names[n]}={_shown(o)}" if n < len(names) else _shown(o) for n, o in enumerate(rest[1:])]
        return f"{name}({', '.join(shown)})"
    if op.what in (COMPLETE, RESUME):
        name = "SDEI_EVENT_COMPLETE" + ("_AND_RESUME" if op.what == RESUME else "")
        return f"{name}({_shown(rest[0]) if rest else 0})"
    if op.what == FIRE:
        return f"the bound {'SPI' if rest and rest[0].value else 'PPI'}'s device fires"
    if op.what == INJECT:
        event, cpu = (*rest, Operand("L", 0), Operand("L", 0))[:2]
        return f"the host injects event {event.value:#x} on CPU {cpu.value}"
    return {
        TIMER: "takes a timer interrupt",
        OFF: "CPU_OFF()",
        LEAVE: "(goes on elsewhere, as a new kernel does)",
    }[op.what]


def lines(script: Script) -> list[str]:
    """A sequence for people, one operation a line."""
    rows = [f"{n:>3}  CPU {step.cpu}: {described(step.op)}" for n, step in enumerate(script.steps, 1)]
    for number in sorted(script.used()):
        program = script.programs[number]
        rows += [f"     h{number}: {described(op)}" for op in (*program.ops, program.ending)]
    return rows


# ---- what is in which ------------------------------------------------------------------------------------------------


def mapped(script: Script, cpus: Mapping[int, int]) -> Script:
    """The same with other CPUs."""

    def operand(o: Operand) -> Operand:
        return replace(o, value=cpus.get(o.value, o.value)) if o.kind == "A" else o

    def op(one: Op) -> Op:
        found = replace(one, operands=tuple(map(operand, one.operands)))
        if function_name(one.function) == "CPU_ON" and len(one.operands) > 3:  # the context id is the CPU's number
            last = replace(found.operands[3], value=cpus.get(one.operands[3].value, one.operands[3].value))
            found = replace(found, operands=(*found.operands[:3], last))
        return found

    return Script(
        tuple(Step(cpus.get(step.cpu, step.cpu), op(step.op)) for step in script.steps),
        tuple(Program(tuple(map(op, p.ops)), op(p.ending)) for p in script.programs),
    )


def cpus_of(script: Script) -> tuple[int, ...]:
    """CPUs that it names."""
    found = {step.cpu for step in script.steps}
    found |= {o.value for op in script.ops() for o in op.operands if o.kind == "A" and o.value < MAX_CPUS}
    return tuple(sorted(found))


def embeds(script: Script, pattern: Script, cpus: int, ran: Collection[int]) -> bool:
    """Whether all of `pattern` is in `script` in its order, whichever CPUs it is on: what it shows, `script` would.

    `ran`: its programs that a handler has run; what the others do does not matter.
    """
    own = cpus_of(pattern)
    choices: Iterator[Sequence[int]] = permutations(range(cpus), len(own))
    if len(own) > 3:
        choices = iter([own])
    return any(_embeds(script, mapped(pattern, dict(zip(own, choice, strict=True))), ran) for choice in choices)


def _embeds(script: Script, pattern: Script, ran: Collection[int]) -> bool:
    at = 0
    for step in script.steps:
        if at < len(pattern.steps):
            wanted = pattern.steps[at]
            # Who signals does not matter, but whom.
            here = step.cpu == wanted.cpu or wanted.op.function == Sdei.EVENT_SIGNAL
            at += here and _same(script, step.op, pattern, wanted.op, ran)
    return at == len(pattern.steps)


def _same(script: Script, op: Op, pattern: Script, wanted: Op, ran: Collection[int]) -> bool:
    if op.what != wanted.what or len(op.operands) < len(wanted.operands):
        return False
    for own, other in zip(op.operands, wanted.operands, strict=False):
        if own.kind == other.kind == "P":
            if other.value in ran and not _contains(script, own.value, pattern, other.value):
                return False
        elif own != other:
            return False
    return True


def _contains(script: Script, number: int, pattern: Script, wanted: int) -> bool:
    own = script.programs[number] if number < len(script.programs) else Program()
    other = pattern.programs[wanted] if wanted < len(pattern.programs) else Program()
    if own.ending.what != other.ending.what:
        return False
    at = 0
    for op in own.ops:
        at += at < len(other.ops) and op == other.ops[at]
    return at == len(other.ops)
