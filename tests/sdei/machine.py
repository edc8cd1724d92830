"""A machine for tests of the core: does per frame what the owner of a `Dispatcher` does, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qemu_sdei.sdei import CpuFeatures, Dispatcher, EventDescription, EventType, MachineDescription, Priority
from qemu_sdei.sdei.constants import PRIVATE_SLOTS, SHARED_SLOTS, Function
from qemu_sdei.sdei.context import PC, PSTATE, WORD_MASK, X0, Regs, new_regs

EL1H: Final = 0x5
ENTRY: Final = 0xFFFF_8000_0801_0000
ARGUMENT: Final = 0xDEAD_BEEF_0000_0001
CALL_PC: Final = 0xFFFF_8000_0900_0000

PRIVATE: Final = 0x100
PRIVATE_2: Final = 0x101
PRIVATE_CRITICAL: Final = 0x103
SHARED: Final = 0x200
SHARED_2: Final = 0x201
SHARED_CRITICAL: Final = 0x202
UNKNOWN: Final = (0x1_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)

NO_PE: Final = 0xFFFF_FFFF

DENIED: Final = -3
INVALID: Final = -2
NOT_SUPPORTED: Final = -1
PENDING: Final = -5
OUT_OF_RESOURCE: Final = -10


def profile(**changes: object) -> MachineDescription:
    """The default events with other settings."""
    return MachineDescription(events=MachineDescription.default().events, **changes)  # type: ignore[arg-type]


def small_profile() -> MachineDescription:
    """Event 0 and one event of each kind, two of the commonest."""
    return MachineDescription(
        events=(
            EventDescription(0, "zero", signalable=True),
            EventDescription(PRIVATE, "private"),
            EventDescription(PRIVATE_CRITICAL, "private-critical", priority=Priority.CRITICAL),
            EventDescription(SHARED, "shared", type=EventType.SHARED),
            EventDescription(SHARED_2, "shared-2", type=EventType.SHARED),
            EventDescription(SHARED_CRITICAL, "shared-critical", EventType.SHARED, Priority.CRITICAL),
        ),
        slots=(2, 2),
    )


class Machine:
    """PEs with registers. `deliveries` collects (pe, event); kicks are served at once unless `hold_kicks`."""

    def __init__(
        self,
        pes: int = 2,
        *,
        profile: MachineDescription | None = None,
        features: CpuFeatures | None = None,
        client_el: int = 1,
        power: bool = True,
        unmask: bool = True,
    ) -> None:
        self.dispatcher = Dispatcher(
            profile or MachineDescription.default(), range(pes), client_el=client_el, features=features or CpuFeatures()
        )
        self.regs: list[Regs] = [new_regs() for _ in range(pes)]
        self.deliveries: list[tuple[int, int]] = []
        self.hold_kicks = False
        self.sctlr = 0
        self.hcr_el2 = 0
        self.resumed: tuple[int, int] | None = None
        """ELR and SPSR that the last COMPLETE_AND_RESUME wanted written."""
        for pe, regs in enumerate(self.regs):
            regs[PSTATE] = client_el << 2 | 1
            regs[PC] = CALL_PC + 0x1000 * pe
            if power:
                self.dispatcher.power_on(pe)
                if unmask:
                    self(pe, Function.PE_UNMASK)

    def __call__(self, pe: int, function: int, *args: int) -> int | None:
        """A call by `pe`; the signed result, or None if it does not return to the caller."""
        regs = self.regs[pe]
        regs[X0] = function
        for index, arg in enumerate(args, X0 + 1):
            regs[index] = arg & WORD_MASK
        handler: Callable[[int, Regs], int | None] = self.dispatcher.handlers[function]
        result = handler(pe, regs)
        if result is not None:
            regs[X0] = result & WORD_MASK
        self.frame(pe)
        self.serve_kicks()
        return result

    def frame(self, pe: int) -> int | None:
        """What ends every frame."""
        if self.dispatcher.resume is not None:
            self.resumed = self.dispatcher.take_resume(self.regs[pe], self.sctlr, self.hcr_el2)
        if not self.dispatcher.attention[pe]:
            return None
        event = self.dispatcher.dispatch(pe, self.regs[pe], self.sctlr, self.hcr_el2)
        if event is not None:
            self.deliveries.append((pe, event))
        return event

    def serve_kicks(self) -> None:
        """Interrupt the PEs that the dispatcher wants interrupted."""
        while self.dispatcher.kicks and not self.hold_kicks:
            self.frame(self.dispatcher.kicks.pop(0))

    def trigger(self, event: int, pe: int | None = None) -> object:
        """An injection by the host."""
        result = self.dispatcher.trigger(event, pe)
        self.serve_kicks()
        return result

    # --- what tests do all the time -----------------------------------------------------------------------------------

    def register(
        self, pe: int, event: int, *, flags: int = 0, affinity: int = 0, argument: int = ARGUMENT
    ) -> int | None:
        """EVENT_REGISTER with the usual entry point."""
        return self(pe, Function.EVENT_REGISTER, event, ENTRY, argument, flags, affinity)

    def enable(self, pe: int, event: int) -> None:
        """Register and enable; both must succeed."""
        assert self.register(pe, event) == 0
        assert self(pe, Function.EVENT_ENABLE, event) == 0

    def status(self, pe: int, event: int) -> int | None:
        """EVENT_STATUS, without letting the registers show it."""
        regs = new_regs()
        regs[PSTATE] = self.dispatcher.client_el << 2 | 1
        regs[X0 + 1] = event
        return self.dispatcher.handlers[Function.EVENT_STATUS](pe, regs)

    def signal(self, pe: int, target: int) -> int | None:
        """EVENT_SIGNAL of event 0."""
        return self(pe, Function.EVENT_SIGNAL, 0, target)

    def run(self, pe: int, event: int) -> None:
        """Have the handler of `event` running on `pe` (private, or shared and not routed elsewhere)."""
        if self.status(pe, event) == 0:
            self.enable(pe, event)
        self.trigger(event, pe)
        assert self.deliveries[-1] == (pe, event)

    def to_state(self, pe: int, event: int, state: int) -> None:
        """Bring an unregistered event into `state`."""
        if state in (1, 3):
            assert self.register(pe, event) == 0
            if state == 3:
                assert self(pe, Function.EVENT_ENABLE, event) == 0
        elif state:
            self.run(pe, event)
            if state == 5:
                assert self(pe, Function.EVENT_DISABLE, event) == 0
            elif state == 4:
                assert self(pe, Function.EVENT_UNREGISTER, event) == PENDING
        assert self.status(pe, event) == state

    def x(self, pe: int, number: int) -> int:
        """A register."""
        return self.regs[pe][X0 + number]


BUSY_FEATURES: Final = CpuFeatures(pan=True, ssbs=True)


def busy() -> Machine:
    """Something of everything: nesting, a shared handler, pending behind and disabled, unregister-pending, a PE off."""
    machine = Machine(4, features=BUSY_FEATURES)
    machine.sctlr = 0x1234_5678_9ABC
    machine.run(0, PRIVATE)
    machine.trigger(PRIVATE, 0)
    machine.run(0, PRIVATE_CRITICAL)
    machine.enable(0, PRIVATE_2)
    machine.trigger(PRIVATE_2, 0)
    machine.register(0, 0)
    machine.signal(1, 0)
    machine.run(1, SHARED)
    assert machine(2, Function.EVENT_UNREGISTER, SHARED) == PENDING
    machine.register(2, SHARED_2, flags=1, affinity=3)
    machine(2, Function.EVENT_ENABLE, SHARED_2)
    machine.dispatcher.power_off(3)
    machine.trigger(SHARED_2)
    machine.enable(2, SHARED_CRITICAL)
    assert machine(2, Function.INTERRUPT_BIND, 27) == PRIVATE_SLOTS
    assert machine(2, Function.INTERRUPT_BIND, 34) == SHARED_SLOTS
    machine.register(2, PRIVATE_SLOTS)
    machine.register(2, SHARED_SLOTS, flags=1, affinity=2)
    machine(2, Function.PE_MASK)
    return machine
