"""Answers that may differ: what the specification leaves to the implementation, and what is configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from qemu_sdei.differential.answers import Record, Transcript
from qemu_sdei.differential.sequence import CALL, Op, Operand, Script, function_name
from qemu_sdei.sdei.constants import DENIED, INVALID_PARAMETERS, RM_ANY
from qemu_sdei.sdei.constants import Function as Sdei

M64: Final = (1 << 64) - 1
CONTEXT_UNKNOWN: Final = 2
SPI_EVENT: Final = 0xB000_0001
_FIRST_ODD_SPI: Final = 256
_INVALID_ADDRESS: Final = -9
_BOUND: Final = "B"
_QUESTIONS: Final = (
    *("SDEI_VERSION", "SDEI_FEATURES", "PSCI_VERSION", "PSCI_FEATURES", "MIGRATE_INFO_TYPE"),
    *("CPU_SUSPEND", "0x80000000", "0x80000001"),
)


@dataclass(frozen=True)
class Place:
    """Step and CPU of a record."""

    step: int
    cpu: int


@dataclass(frozen=True)
class Allowed:
    """One thing that may differ.

    Attributes:
        name: for programs.
        what: what differs.
        why: who leaves it open.
        parts: what comes after it follows from it: only what the CPUs can do at the end is compared.
    """

    name: str
    what: str
    why: str
    parts: bool = False


@dataclass(frozen=True)
class _Case:
    """A difference as the tests below see it."""

    script: Script
    ours: Transcript
    place: Place
    left: Record | None
    right: Record | None

    @property
    def op(self) -> Op | None:
        """The call that both are answers to."""
        if self.left is None or self.right is None or self.left.kind != "c" or self.right.kind != "c":
            return None
        ops = self.script.ops()
        return ops[self.left.op] if self.left.op == self.right.op < len(ops) else None

    @property
    def function(self) -> str:
        """Its name; "": it is none."""
        return "" if self.op is None else function_name(self.op.function)

    @property
    def answers(self) -> tuple[int, int]:
        """Both, with their sign."""
        assert self.left is not None
        assert self.right is not None
        return signed(self.left.a), signed(self.right.a)

    def operand(self, number: int) -> Operand:
        """An argument of the call; of none, and where there is none, 0."""
        operands = () if self.op is None else self.op.operands
        return operands[number] if number < len(operands) else Operand("L", 0)


def signed(value: int) -> int:
    """A register as a signed number."""
    return value - (M64 + 1) if value >> 63 else value


def _in_a_handler(case: _Case) -> bool:
    records = (case.left, case.right)
    return all(r is not None and r.kind == "i" and len(case.script.steps) <= r.op < 0xF0 for r in records)


def _configuration(case: _Case) -> bool:
    return case.function in _QUESTIONS


def _two_faults(case: _Case) -> bool:
    psci = case.function in ("CPU_ON", "AFFINITY_INFO") and all(answer < 0 for answer in case.answers)
    return psci and case.left is not None and case.right is not None and case.left.b == case.right.b


def _entry(case: _Case) -> bool:
    entry = case.operand(2)
    if case.function == "SDEI_EVENT_REGISTER":
        odd = entry.kind != "H" or entry.value % 4 != 0
        return odd and INVALID_PARAMETERS in case.answers and set(case.answers) <= {0, INVALID_PARAMETERS, DENIED}
    return case.function == "CPU_ON" and entry.kind == "X" and set(case.answers) == {0, _INVALID_ADDRESS}


def _routing(case: _Case) -> bool:
    if case.function not in ("SDEI_EVENT_REGISTER", "SDEI_EVENT_ROUTING_SET"):
        return False
    which = case.operand(5 if case.function == "SDEI_EVENT_REGISTER" else 3)
    return which.kind == "A" and which.value >= 2 and INVALID_PARAMETERS in case.answers and 0 in case.answers


def _large_interrupt(case: _Case) -> bool:
    return case.function == "SDEI_INTERRUPT_BIND" and case.operand(1).value >= _FIRST_ODD_SPI


def _unbound(case: _Case) -> bool:
    if not case.function.startswith("SDEI_") or case.operand(1).kind != _BOUND:
        return False
    number = case.operand(1).value
    is_bound = False
    ops = case.script.ops()
    for record in case.ours.records:
        if record is case.left:
            break
        op = ops[record.op] if record.kind == "c" and record.op < len(ops) else None
        if op is None or signed(record.a) < 0:
            continue
        if op.function == Sdei.INTERRUPT_BIND and record.a == 0xB000_0000 + number:
            is_bound = True
        elif op.function == Sdei.SHARED_RESET or (
            op.function == Sdei.INTERRUPT_RELEASE and op.operands[1:2] == (Operand(_BOUND, number),)
        ):
            is_bound = False
    return not is_bound and all(answer in (0, INVALID_PARAMETERS, DENIED) for answer in case.answers)


def _elsewhere(case: _Case) -> bool:
    return case.function == "SDEI_EVENT_CONTEXT" and CONTEXT_UNKNOWN in case.answers and min(case.answers) >= 0


def _bad_index(case: _Case) -> bool:
    return case.function == "SDEI_EVENT_CONTEXT" and set(case.answers) == {INVALID_PARAMETERS, DENIED}


def _any_cpu(case: _Case) -> bool:
    if not any(r is not None and r.kind == "h" and r.a == SPI_EVENT for r in (case.left, case.right)):
        return False
    return any(_routes_anywhere(op) for op in case.script.ops())


def _routes_anywhere(op: Op) -> bool:
    if op.what != CALL or op.operands[1:2] != (Operand(_BOUND, 1),):
        return False
    place = {int(Sdei.EVENT_REGISTER): 4, int(Sdei.EVENT_ROUTING_SET): 2}.get(op.function, 0)
    return place > 0 and (len(op.operands) <= place or op.operands[place].value == RM_ANY)


TABLE: Final[tuple[tuple[Allowed, Callable[[_Case], bool]], ...]] = (
    (
        Allowed(
            "interrupt-in-handler",
            "an interrupt that comes in a handler which unmasks it is taken there, or waits for the handler's end",
            "nothing in DEN0054 says whether a firmware holds Non-secure interrupts back, by GIC priority, meanwhile",
        ),
        _in_a_handler,
    ),
    (
        Allowed(
            "configuration",
            "versions, vendor, number of bind slots, which calls and states there are",
            "each firmware says what it has",
        ),
        _configuration,
    ),
    (
        Allowed(
            "two-faults",
            "which error a PSCI call with several faults has",
            "DEN0022 gives no order of the checks",
        ),
        _two_faults,
    ),
    (
        Allowed(
            "entry-point",
            "EVENT_REGISTER and CPU_ON with an entry point where no code can be",
            "which addresses can be is the platform's to say (DEN0054 5.1.2, DEN0022 5.1.4)",
            parts=True,
        ),
        _entry,
    ),
    (
        Allowed(
            "affinity",
            "EVENT_REGISTER and EVENT_ROUTING_SET with a CPU that is not there",
            "routing means nothing to a private event; which affinities there are is the platform's to say (5.1.2)",
            parts=True,
        ),
        _routing,
    ),
    (
        Allowed(
            "largest-spi", "INTERRUPT_BIND of an SPI from 256 on", "how many SPIs there are is configuration", True
        ),
        _large_interrupt,
    ),
    (
        Allowed(
            "unbound-number",
            "calls that name a dynamic event which no interrupt is bound to",
            "whether such a number is known is the firmware's to say, if it says so consistently",
            parts=True,
        ),
        _unbound,
    ),
    (
        Allowed(
            "place-of-interruption",
            "EVENT_CONTEXT of a register that the guest had not set",
            "between which two instructions an event comes is not specified",
        ),
        _elsewhere,
    ),
    (
        Allowed(
            "bad-index",
            "EVENT_CONTEXT with a bad index outside of a handler: INVALID_PARAMETERS or DENIED",
            "DEN0054 5.1.5 gives no order of the checks",
        ),
        _bad_index,
    ),
    (
        Allowed(
            "any-cpu",
            "which CPU handles a shared event with RM_ANY",
            "DEN0054 5.1.11: any that can",
            parts=True,
        ),
        _any_cpu,
    ),
)
"""Each with what recognises it."""


def reason(script: Script, ours: Transcript, place: Place, left: Record | None, right: Record | None) -> Allowed | None:
    """Why the records `left` of ours and `right` of theirs may differ; None: they may not."""
    case = _Case(script, ours, place, left, right)
    return next((entry for entry, recognises in TABLE if recognises(case)), None)
