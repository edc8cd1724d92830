"""What the parts of one guest's firmware share: facts of its machine, the answer that is being made, who is told."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from qemu_sdei.backend.firmware.interrupt_ownership import Ownership
from qemu_sdei.backend.firmware.quirks import Quirks
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import AnswerFlag, Word
from qemu_sdei.monitor.ops import MicroOp
from qemu_sdei.monitor.sysregs import active_priorities
from qemu_sdei.sdei.dispatcher import Dispatcher

Steps = Generator[Any, Any, Any]
"""A service that asks for micro-operations, and is sent their results."""
Note = Callable[..., None]
Record = Callable[[int, memoryview, tuple[int, ...]], None]
PARK: Final = int(AnswerFlag.PARK)
DAIF: Final = 0x3C0
_MAX_WHY: Final = 500
"""Characters of a rejection's reason."""


def affinity(cpu: int) -> int:
    """MPIDR affinity of QEMU's CPU `cpu` with a GICv3: 16 CPUs in an Aff1 cluster, 256 clusters in an Aff2."""
    return cpu & 0xF | (cpu >> 4 & 0xFF) << 8 | cpu >> 12 << 16


def park(frame: memoryview) -> None:
    """Answer a frame: the CPU waits in the monitor."""
    frame[Word.FLAGS] = PARK


class RefusedSmc(Enum):
    """What a guest finds whose calls go by HVC, and that executes SMC."""

    UNSUPPORTED = "unsupported"
    """NOT_SUPPORTED, whatever it asked for."""
    UNDEFINED = "undefined"
    """There is no such instruction."""


class MachineFacts:
    """What the firmware knows of its machine.

    Attributes:
        affinities: of each CPU, in MPIDR form.
        sctlr: index of the frame's word with SCTLR of the client's exception level.
        monitor: version of the frame window that the guest's EL3 monitor is of.
        id_registers: ID registers by name, as CPU 0 came out of reset with them.
        epoch: counts resets of the machine.
        kernels: counts kernels that have begun since: more than one, and one has started another (kexec).
        at_reset: micro-operations for each CPU that comes out of reset: what is to be at EL2 below the guest.
        smc: what becomes of an SMC of a guest whose calls go by HVC; None: it is a call, too.
    """

    def __init__(
        self,
        nr_cpus: int,
        client_el: int,
        ram: range | None,
        at_reset: Sequence[MicroOp] = (),
        smc: RefusedSmc | None = None,
    ) -> None:
        """`ram`: physical addresses of the guest's RAM, where it can run with its MMU off; None: anywhere."""
        self.nr_cpus = nr_cpus
        self.client_el = client_el
        self.ram = ram
        self.at_reset = tuple(at_reset)
        self.smc = smc
        self.affinities = [affinity(cpu) for cpu in range(nr_cpus)]
        self.sctlr = int(Word.SCTLR_EL1 if client_el == 1 else Word.SCTLR_EL2)
        self.monitor = layout.VERSION
        self.id_registers: dict[str, int] = {}
        self.epoch = 0
        self.kernels = 0


class Answer:
    """The answer that is being made; of one frame at a time. What is left here when a frame is answered, is void.

    Attributes:
        frame: that of the call which is being answered.
        flags: `AnswerFlag` bits, beside those for micro-operations.
        ops: micro-operations that go with it.
        wake: (entry point, x0) at which the caller comes up, in place of returning.
    """

    __slots__ = ("flags", "frame", "ops", "wake")

    def __init__(self) -> None:
        self.frame: memoryview | None = None
        self.flags = 0
        self.ops: list[MicroOp] = []
        self.wake: tuple[int, int] | None = None

    def clear(self) -> None:
        """Nothing goes with it."""
        self.flags = 0
        self.wake = None
        self.ops.clear()


class Observer:
    """Who is told what happens; nobody in a replay.

    Attributes:
        note: called with (name, PE, details...) for what a person would want to see.
        record: called with (PE, frame, x0...) when a service that may not be run twice has given its result.
        wall: the host's real time in ns, of the moment at which the guest's counter stood at the first argument; the
            second is the counter's frequency.
    """

    def __init__(self) -> None:
        self.note: Note | None = None
        self.record: Record | None = None
        self.wall: Callable[[int, int], int] | None = None

    def tell(self, name: str, pe: int | None, **details: Any) -> None:
        """Something has happened."""
        if self.note is not None:
            self.note(name, pe, **details)

    def priorities(self, pe: int, occasion: str, ap1r0: int, *, keeps: bool | None = None) -> None:
        """What priorities are active at the GIC of a CPU at an `occasion` ("cpu-on", "wake", "kernel"), by
        ICC_AP1R0_EL1; whether the firmware is going to leave them so. None: it has ended them.
        """
        if self.note is not None:
            then = None if keeps is None else "kept" if keeps else "ended"
            active = list(active_priorities(ap1r0))
            self.note("priorities", pe, at=occasion, ap1r0=ap1r0, active=active, then=then)

    def reject(self, pe: int, why: str) -> None:
        """Something was not as it must be."""
        self.tell("reject", pe, why=why[:_MAX_WHY])  # a service's error may quote what the guest gave it


@dataclass(frozen=True)
class Core:
    """One of each, for all parts."""

    machine: MachineFacts
    dispatcher: Dispatcher
    ownership: Ownership
    answer: Answer
    observer: Observer
    quirks: Quirks
