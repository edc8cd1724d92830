"""The guest of `guest/compare` in Python, on the real SDEI core: a machine without QEMU, whose firmware can be broken.

It prints what the guest prints. `Faults` are those that a comparison must find.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from qemu_sdei.differential.answers import BACK, CHECK, LEFT, NO_OP
from qemu_sdei.differential.sequence import (
    CALL,
    FIRE,
    INJECT,
    LEAVE,
    OFF,
    RESUME,
    TIMER,
    Op,
    Operand,
    Script,
    checksum,
    function_name,
    parse,
)
from qemu_sdei.errors import SdeiError
from qemu_sdei.sdei.constants import Function as Sdei
from qemu_sdei.sdei.machine_description import MachineDescription
from tests.sdei.machine import Machine as Core

M64: Final = (1 << 64) - 1
HANDLER: Final = 0x4020_1000
RESUMED: Final = 0x4020_2000
CHECKED: Final = 0x99
PROGRAMS: Final = 0x4020_8000
BAD: Final = 1 << 55


class LeftError(Exception):
    """The CPU goes on elsewhere."""


@dataclass(frozen=True)
class Faults:
    """What a firmware does wrong."""

    lost_when_masked: bool = False
    """A: a handler that signals its own PE, masks it and completes leaves it deaf."""
    signalled_while_off: bool = False
    """B: SIGNAL to a CPU that went off ready is accepted, and leaves it deaf."""
    off_in_handler: bool = False
    """C: CPU_OFF in a handler leaves the CPU deaf when it is on again."""
    new_kernel: bool = False
    """D: no interrupt comes while an event's handler has not ended."""
    answers: Mapping[int, int] = field(default_factory=dict)
    """Functions that are answered by this, whatever they do."""
    hangs: int = 0
    """A function that never returns."""
    resets: int = 0
    """A function that resets the machine."""
    talks: str = ""
    """What the firmware prints before each answer."""


@dataclass
class Clock:
    """Time, which passes only while nothing comes."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class ModelMachine(AbstractContextManager["ModelMachine"]):
    """One start of the guest."""

    def __init__(self, faults: Faults, clock: Clock, cpus: int = 2, profile: MachineDescription | None = None) -> None:
        self._faults = faults
        self._clock = clock
        self._cpus = cpus
        self._profile = profile or MachineDescription.default()
        self._typed: deque[str] = deque()
        self._out: list[str] = []
        self.ended = ""

    def __enter__(self) -> ModelMachine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    # ---- as `Machine`

    def write(self, text: str) -> None:
        self._typed.extend(text.splitlines())

    def inject(self, event: int, cpu: int) -> None:
        raise SdeiError("nobody injects here")

    def inject_at(self, event: int, cpu: int, watched: int, code: range) -> None:
        self.inject(event, cpu)

    def trace(self, most: int = 0) -> Sequence[Mapping[str, Any]]:
        return ()

    def explanation(self) -> Sequence[str]:
        return ()

    def console(self) -> list[str]:
        return []

    def follow(self) -> Iterator[str]:
        self._say(f"@f el=1 cpus={self._cpus:x} version=10001004b564d slots=0 signal=0 smccc=10002 psci=10001")
        yield self._flush()
        while True:
            if not self._typed:
                yield ""
                continue
            try:
                self._do(self._typed.popleft())
            except TimeoutError:
                yield self._flush()
                while True:
                    self._clock.now += 1
                    yield ""
            except ConnectionError:
                self.ended = "the machine was powered off or reset"
                yield self._flush()
                return
            yield self._flush()

    def _flush(self) -> str:
        text, self._out = "".join(self._out), []
        return text

    def _say(self, text: str) -> None:
        self._out.append(f"{self._faults.talks}{text} ~{checksum(text):04x}\n")

    # ---- a sequence

    def _do(self, line: str) -> None:
        number, words = line.rpartition(" ~")[0][1:].split(" ", 1)
        run = _Run(self._faults, self._cpus, self._profile, parse(words, self._cpus))
        try:
            run.everything()
        finally:
            for record in run.records:
                self._say("@r {:x} {:x} {} {:x} {:x} {:x} {:x}".format(*record))
        self._say(f"@e {number} {len(run.records):x} {int(not run.healthy)}")


class _Run:
    """One sequence; the firmware is as after a boot, which it is only behind one that left it healthy."""

    def __init__(self, faults: Faults, cpus: int, profile: MachineDescription, script: Script) -> None:
        self.faults, self.cpus, self.script = faults, cpus, script
        self.core = Core(cpus, profile=profile)
        self.core.hold_kicks = True
        self.ops = script.ops()
        self.records: list[tuple[int, int, str, int, int, int, int]] = []
        self.step = 0
        self.on = [True] * cpus
        self.depth = [0] * cpus
        self.deaf = [False] * cpus
        self.wanted = [False] * cpus
        """B: signalled while off."""
        self.was_ready = [False] * cpus
        self.ran: set[tuple[int, int]] = set()
        self.healthy = True
        self.first_ops = self._first_ops()

    def _first_ops(self) -> list[int]:
        at, found = len(self.script.steps), []
        for program in self.script.programs:
            found.append(at)
            at += len(program.ops)
        return found

    def note(self, cpu: int, kind: str, op: int = NO_OP, a: int = 0, b: int = 0, c: int = 0) -> None:
        self.records.append((cpu, self.step, kind, op, a & M64, b, c))

    # ---- phases

    def everything(self) -> None:
        for at, step in enumerate(self.script.steps):
            self.step = at
            if self.on[step.cpu]:
                self.attempt(step.cpu, step.op, at)
            else:
                self.note(step.cpu, "s", at)
            self.settle()
        self.step = LEFT
        for cpu in range(self.cpus):
            if self.on[cpu]:
                self.note(cpu, "i", NO_OP, int(self.takes_timer(cpu)))
        self.step = BACK
        self.put_back()
        self.step = CHECK
        for cpu in range(self.cpus):
            able = self.takes_timer(cpu), not self.deaf[cpu]
            self.note(cpu, "p", NO_OP, *map(int, able))
            self.healthy &= all(able)

    def put_back(self) -> None:
        for cpu in range(self.cpus):
            while self.on[cpu] and self.depth[cpu]:
                self.depth[cpu] -= 1
                self.core(cpu, Sdei.EVENT_COMPLETE, 0)
                self.entered(cpu)
        for cpu in range(self.cpus):
            if self.on[cpu]:
                self.core(cpu, Sdei.PE_MASK)
                self.note(cpu, "k", NO_OP, self.core(cpu, Sdei.PRIVATE_RESET) or 0)
        self.note(0, "k", NO_OP, self.core(0, Sdei.SHARED_RESET) or 0, 1)
        for cpu in range(self.cpus):
            if not self.on[cpu]:
                self.come_up(cpu)
                self.note(0, "n", NO_OP, 0, cpu)

    def attempt(self, cpu: int, op: Op, at: int) -> None:
        with contextlib.suppress(LeftError):
            self.do(cpu, op, at)

    def settle(self) -> None:
        for cpu in list(self.core.dispatcher.kicks) + list(range(self.cpus)):
            if self.on[cpu] and not self.deaf[cpu]:
                with contextlib.suppress(LeftError):
                    self.core.frame(cpu)
                    self.entered(cpu)
        self.core.dispatcher.kicks.clear()

    def takes_timer(self, cpu: int) -> bool:
        return not self.deaf[cpu] and not (self.faults.new_kernel and self.depth[cpu])

    def come_up(self, cpu: int) -> None:
        self.on[cpu] = True
        self.core.dispatcher.power_on(cpu)
        if self.wanted[cpu] and self.faults.signalled_while_off:
            self.deaf[cpu] = True
        self.note(cpu, "u")

    # ---- operations

    def value(self, o: Operand) -> int:
        return {
            "A": o.value if o.value < self.cpus else 0xFF00,
            "B": 0x7FFF_FFF0 + o.value,
            "H": HANDLER + o.value,
            "P": PROGRAMS + o.value,
            "R": RESUMED + o.value,
            "X": BAD + o.value,
        }.get(o.kind, o.value)

    def do(self, cpu: int, op: Op, at: int) -> None:
        if op.what == TIMER:
            self.note(cpu, "i", at, int(self.takes_timer(cpu)))
        elif op.what == OFF:
            self.go_off(cpu)
        elif op.what == CALL:
            self.call(cpu, op, at)
        else:
            assert op.what in (FIRE, INJECT)

    def go_off(self, cpu: int) -> None:
        if cpu == 0:
            self.note(cpu, "s")
            return
        self.was_ready[cpu] = self.core.status(cpu, 0) == 3
        if self.depth[cpu] and self.faults.off_in_handler:
            self.deaf[cpu] = True
        self.depth[cpu] = 0
        self.on[cpu] = False
        self.core.dispatcher.power_off(cpu)
        self.note(cpu, "d")
        raise LeftError

    def call(self, cpu: int, op: Op, at: int) -> None:
        function, name = op.function, function_name(op.function)
        arguments = [self.value(o) for o in op.operands[1:]]
        if function == self.faults.hangs:
            raise TimeoutError
        if function == self.faults.resets:
            raise ConnectionResetError
        if self.depth[cpu] and function in (Sdei.EVENT_COMPLETE, Sdei.EVENT_COMPLETE_AND_RESUME):
            self.note(cpu, "s", at)
            return
        if name == "CPU_ON":
            answer = self.cpu_on(arguments)
        elif function in self.core.dispatcher.handlers:
            answer = self.sdei(cpu, function, arguments)
        else:
            answer = -1
        if function == Sdei.EVENT_CONTEXT and answer >= 0:
            answer = 2
        self.note(cpu, "c", at, self.faults.answers.get(function, answer))

    def sdei(self, cpu: int, function: int, arguments: list[int]) -> int:
        target = arguments[1] if function == Sdei.EVENT_SIGNAL and len(arguments) > 1 else 0
        if function == Sdei.EVENT_SIGNAL and target < self.cpus and not self.on[target] and self.was_ready[target]:
            self.wanted[target] = True
            if self.faults.signalled_while_off:
                return 0
        answer = self.core(cpu, function, *arguments)
        self.entered(cpu)
        return answer or 0

    def cpu_on(self, arguments: list[int]) -> int:
        target = arguments[0] if arguments else 0
        if target >= self.cpus:
            return -2
        if self.on[target]:
            return -4
        if len(arguments) > 1 and arguments[1] >= BAD:
            return -9
        self.come_up(target)
        return 0

    # ---- handlers

    def entered(self, cpu: int) -> None:
        """Run the handlers that the core has let in there, and what comes behind each."""
        while self.core.deliveries:
            where, event = self.core.deliveries.pop(0)
            assert where == cpu
            self.handler(cpu, event, self.core.x(cpu, 1))

    def handler(self, cpu: int, event: int, argument: int) -> None:
        number = argument - PROGRAMS
        self.depth[cpu] += 1
        self.note(cpu, "h", NO_OP, event, number << 32 | 5, 0x3C5)
        ending = Op("e")
        if (number, cpu) not in self.ran and number < len(self.script.programs):
            self.ran.add((number, cpu))
            program = self.script.programs[number]
            ending = program.ending
            for at, op in enumerate(program.ops, self.first_ops[number]):
                self.do(cpu, op, at)
        if ending.what == OFF:
            self.go_off(cpu)  # CPU 0 stays, and completes
        if ending.what == LEAVE:
            raise LeftError
        self.complete(cpu, event, ending)

    def complete(self, cpu: int, event: int, ending: Op) -> None:
        pe = self.core.dispatcher
        pending = pe.why_pending(event, cpu) is not None
        if ending.what == RESUME:
            answer = self.core(cpu, Sdei.EVENT_COMPLETE_AND_RESUME, self.value(ending.operands[0]))
        else:
            answer = self.core(cpu, Sdei.EVENT_COMPLETE, 0)
        if answer is not None:
            self.note(cpu, "q", NO_OP, answer)
            raise LeftError
        self.depth[cpu] -= 1
        if ending.what == RESUME:
            self.note(cpu, "z", NO_OP, 0, 0, 0x3C5)
        if pending and self.masked(cpu) and self.faults.lost_when_masked:
            self.deaf[cpu] = True
        self.entered(cpu)

    def masked(self, cpu: int) -> bool:
        return bool(self.core.dispatcher.snapshot()["pes"][cpu]["masked"])
