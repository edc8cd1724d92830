"""Sequences made at random, from a seed: the same seed makes the same ones.

Not by Hypothesis, which the tests use: it wants one example after the other. Here many are typed ahead at two machines,
one that hangs costs seconds and a new guest, and the package would need it to run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from qemu_sdei.differential.sequence import (
    CALL,
    COMPLETE,
    FIRE,
    INJECT,
    LEAVE,
    OFF,
    RESUME,
    SMC64,
    TIMER,
    Op,
    Operand,
    Program,
    Script,
    Step,
)
from qemu_sdei.sdei.constants import Function as Sdei
from qemu_sdei.services.psci import Function as Psci

PPI: Final = 30
SPI: Final = 33
NOBODY: Final = 0x63
_ODD_EVENTS: Final = (1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000)
_ODD_INTIDS: Final = (0, 15, 27, 1019, 1020, 8191)


@dataclass(frozen=True)
class Choice:
    """What sequences may have.

    Attributes:
        cpus: how many there are.
        calls: operations of a sequence, about, at most.
        slots: whether a PPI, and an SPI, can be bound.
        events: static events that both firmwares know and the host can inject, with whether they are shared.
    """

    cpus: int
    calls: int
    slots: tuple[bool, bool] = (False, False)
    events: tuple[tuple[int, bool], ...] = ()


def call(function: int, *operands: Operand) -> Op:
    """A call."""
    return Op(CALL, (Operand("L", int(function)), *operands))


def word(value: int) -> Operand:
    """The number itself."""
    return Operand("L", value)


def cpu(number: int) -> Operand:
    """The affinity of a CPU."""
    return Operand("A", number)


class Generator:
    """One stream of sequences."""

    def __init__(self, seed: int, choice: Choice) -> None:
        self._random = random.Random(seed)
        self._choice = choice
        self._programs: list[Program] = []
        self._off: set[int] = set()
        self._here = 0
        """The CPU that the newest step is of."""

    def script(self) -> Script:
        """The next one. It begins with an event that is ready on a CPU, most of the time: else little happens."""
        rng = self._random
        self._programs, self._off = [], set()
        steps: list[Step] = []
        if rng.random() < 0.9:
            steps += self._ready()
        if rng.random() < 0.3:
            steps += self._ready()
        for _ in range(rng.randint(1, max(1, self._choice.calls - len(steps)))):
            steps.append(self._step())
        return Script(tuple(steps), tuple(self._programs))

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _cpu(self) -> int:
        return self._random.randrange(self._choice.cpus)

    def _on(self) -> int:
        """A CPU that is on, as far as is known here."""
        self._here = self._random.choice([n for n in range(self._choice.cpus) if n not in self._off])
        return self._here

    def _event(self) -> Operand:
        rng, choice = self._random, self._choice
        draw = rng.random()
        if draw < 0.04:
            return word(rng.choice(_ODD_EVENTS))
        if draw < 0.25 and any(choice.slots):
            return Operand("B", rng.choice([n for n in (0, 1) if choice.slots[n]]))
        if draw < 0.45 and choice.events:
            return word(rng.choice(choice.events)[0])
        return word(0)

    def _is_shared(self, event: Operand) -> bool:
        return event == Operand("B", 1) or (event.kind == "L" and (event.value, True) in self._choice.events)

    def _ready(self) -> list[Step]:
        rng, at, event = self._random, self._on(), self._event()
        steps = []
        if event.kind == "B":
            steps.append(Step(at, call(Sdei.INTERRUPT_BIND, word((PPI, SPI)[event.value]))))
        steps.append(Step(at, self._register(event)))
        steps.append(Step(at, call(Sdei.EVENT_ENABLE, event)))
        if rng.random() < 0.1:
            steps.append(Step(at, call(Sdei.PE_MASK)))
        return steps

    def _register(self, event: Operand) -> Op:
        rng = self._random
        entry = Operand("H", 0)
        if rng.random() < 0.03:
            entry = rng.choice((word(0), Operand("H", 2), Operand("X", 0)))
        operands = [event, entry, Operand("P", self._program())]
        if self._is_shared(event) and rng.random() < 0.85:
            operands += [word(1), cpu(self._target())]
        elif rng.random() < 0.04:
            operands += [word(rng.choice((1, 1, 2, 4, 1 << 63))), cpu(self._target())]
        return call(Sdei.EVENT_REGISTER, *operands)

    def _target(self) -> int:
        return NOBODY if self._random.random() < 0.04 else self._cpu()

    def _step(self) -> Step:
        rng = self._random
        draw = rng.random()
        if draw < 0.03:
            return Step(self._on(), Op(TIMER))
        if draw < 0.09 and self._choice.cpus > 1:
            return self._power()
        if draw < 0.15 and any(self._choice.slots):
            which = rng.choice([n for n in (0, 1) if self._choice.slots[n]])
            return Step(self._on(), Op(FIRE, (word(which),)))
        if draw < 0.20 and self._choice.events:
            return Step(0, Op(INJECT, (word(rng.choice(self._choice.events)[0]), word(self._cpu()))))
        return Step(self._on(), self._call(in_handler=False))

    def _power(self) -> Step:
        """CPU 0 reads the sequences, and stays."""
        rng = self._random
        target = rng.randrange(1, self._choice.cpus)
        if target in self._off or rng.random() < 0.1:
            self._off.discard(target)
            return Step(self._on() if rng.random() < 0.5 else 0, self._start(target))
        self._off.add(target)
        return Step(target, Op(OFF))

    def _start(self, target: int) -> Op:
        entry = Operand("X", 0) if self._random.random() < 0.05 else Operand("S", 0)
        return call(Psci.CPU_ON | SMC64, cpu(target), entry, word(target))

    # ---- calls -------------------------------------------------------------------------------------------------------

    def _call(self, *, in_handler: bool) -> Op:
        weights = _IN_HANDLER if in_handler else _OUTSIDE
        make = self._random.choices(list(weights), list(weights.values()))[0]
        return make(self)

    def _signal(self) -> Op:
        rng = self._random
        event = word(0) if rng.random() < 0.95 else self._event()
        return call(Sdei.EVENT_SIGNAL, event, cpu(self._here if rng.random() < 0.3 else self._target()))

    def _simple(self) -> Op:
        """Calls that name an event, and nothing else."""
        functions = (Sdei.EVENT_DISABLE, Sdei.EVENT_UNREGISTER, Sdei.EVENT_STATUS, Sdei.INTERRUPT_RELEASE)
        return call(self._random.choice(functions), self._event())

    def _enable(self) -> Op:
        return call(Sdei.EVENT_ENABLE, self._event())

    def _mask(self) -> Op:
        return call(Sdei.PE_MASK)

    def _unmask(self) -> Op:
        return call(Sdei.PE_UNMASK)

    def _reset(self) -> Op:
        return call(self._random.choice((Sdei.PRIVATE_RESET, Sdei.SHARED_RESET)))

    def _register_again(self) -> Op:
        return self._register(self._event())

    def _info(self) -> Op:
        return call(Sdei.EVENT_GET_INFO, self._event(), word(self._random.choice((0, 1, 2, 3, 4, 5))))

    def _context(self) -> Op:
        return call(Sdei.EVENT_CONTEXT, word(self._random.choice((0, 6, 7, 17, 18, 1 << 32))))

    def _routing(self) -> Op:
        mode = self._random.choice((0, 1, 1, 1, 2))
        return call(Sdei.EVENT_ROUTING_SET, self._event(), word(mode), cpu(self._target()))

    def _bind(self) -> Op:
        rng = self._random
        known = [intid for intid, there in zip((PPI, SPI), self._choice.slots, strict=True) if there]
        intid = rng.choice(known) if known and rng.random() < 0.8 else rng.choice(_ODD_INTIDS)
        return call(Sdei.INTERRUPT_BIND, word(intid))

    def _complete(self) -> Op:
        """Outside of a handler."""
        rng = self._random
        if rng.random() < 0.5:
            return call(Sdei.EVENT_COMPLETE, word(rng.choice((0, 1, 2))))
        return call(Sdei.EVENT_COMPLETE_AND_RESUME, Operand("R", 0))

    def _question(self) -> Op:
        rng = self._random
        return rng.choice(
            (
                call(Sdei.VERSION),
                call(Sdei.FEATURES, word(rng.choice((0, 1, 2)))),
                call(Psci.PSCI_VERSION),
                call(Psci.AFFINITY_INFO | SMC64, cpu(self._target()), word(0)),
                call(Psci.PSCI_FEATURES, word(int(Sdei.EVENT_SIGNAL))),
                call(rng.choice((0xC400_0033, 0xC400_003F))),
            )
        )

    # ---- handlers ----------------------------------------------------------------------------------------------------

    def _program(self) -> int:
        """A program's number: a new one, until there are three."""
        rng = self._random
        if len(self._programs) >= 3 or (self._programs and rng.random() < 0.3):
            return rng.randrange(len(self._programs))
        number = len(self._programs)
        self._programs.append(Program())  # its place, should it be registered by what it does
        ops = [self._in_handler() for _ in range(rng.choices((0, 1, 2, 3), (2, 4, 5, 3))[0])]
        endings = (COMPLETE, RESUME, OFF, LEAVE)
        ending = rng.choices(endings, (60, 15, 12 if self._choice.cpus > 1 else 0, 13))[0]
        operands: tuple[Operand, ...] = ()
        if ending == RESUME:
            odd = (word(0), Operand("R", 2))
            operands = (Operand("R", 0) if rng.random() < 0.9 else rng.choice(odd),)
        elif ending == COMPLETE:
            operands = (word(rng.choice((0, 0, 0, 1))),)
        self._programs[number] = Program(tuple(ops), Op(ending, operands))
        return number

    def _in_handler(self) -> Op:
        return Op(TIMER) if self._random.random() < 0.05 else self._call(in_handler=True)


_Make = Callable[[Generator], Op]
_OUTSIDE: Final[dict[_Make, int]] = {
    Generator._signal: 30,
    Generator._enable: 8,
    Generator._simple: 14,
    Generator._unmask: 8,
    Generator._mask: 6,
    Generator._register_again: 8,
    Generator._reset: 4,
    Generator._info: 3,
    Generator._context: 2,
    Generator._routing: 3,
    Generator._bind: 4,
    Generator._complete: 3,
    Generator._question: 4,
}
_IN_HANDLER: Final[dict[_Make, int]] = {
    Generator._signal: 25,
    Generator._mask: 20,
    Generator._unmask: 6,
    Generator._simple: 16,
    Generator._enable: 6,
    Generator._context: 12,
    Generator._register_again: 4,
    Generator._reset: 5,
    Generator._info: 2,
    Generator._routing: 2,
    Generator._bind: 2,
    Generator._question: 4,
}
"""How often each is chosen."""


def static_events(events: Sequence[tuple[int, bool, bool]]) -> tuple[tuple[int, bool], ...]:
    """Of (number, shared, signalable) those that only the host can trigger."""
    return tuple((number, shared) for number, shared, signalable in events if not signalable)[:3]
