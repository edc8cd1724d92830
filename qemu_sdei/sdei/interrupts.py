"""Bound interrupts: a PPI or SPI of the guest's that becomes an event (DEN0054 5.1.14, 5.1.15).

The core knows which interrupt is bound to which slot and what the GIC is to do with it; doing it is the owner's.
Binding alone changes nothing at the GIC: an interrupt is taken over by EVENT_REGISTER and given back when the event is
unregistered.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.sdei.constants import DENIED, INVALID_PARAMETERS, OUT_OF_RESOURCE, SUCCESS
from qemu_sdei.sdei.engine import Engine
from qemu_sdei.sdei.events import EventDescription, EventType, Instance, Slot
from qemu_sdei.sdei.machine_description import MachineDescription
from qemu_sdei.sdei.pstate import CpuFeatures
from qemu_sdei.sdei.transitions import BIT_RUNNING, ENABLED, STEP, TRIGGER_RESULT, UNREGISTERED, Action

FIRST_PPI: Final = 16
FIRST_SPI: Final = 32
MAX_INTID: Final = 1019
"""The extended ranges of GICv3.1 (1056.., 4096..) are not known: QEMU's GIC has none of them."""


class Wanted(Enum):
    """What is to become of a bound interrupt at the GIC."""

    FREE = "free"
    """The guest's, as it was before."""
    LISTEN = "listen"
    """The firmware's, and the next one is a trigger."""
    HOLD = "hold"
    """The firmware's. If it has fired, it stays quiet until its handler has completed."""


class Interrupts(Engine):
    """An `Engine` whose slots interrupts can be bound to."""

    __slots__ = ("_max_intid", "_reserved_intids", "settling")

    def __init__(
        self,
        profile: MachineDescription,
        affinities: Sequence[int],
        *,
        client_el: int,
        features: CpuFeatures,
        max_intid: int,
        reserved_intids: Collection[int],
    ) -> None:
        """See `Engine.__init__`. `max_intid`: the last SPI that the GIC has; `reserved_intids`: the firmware's own."""
        super().__init__(profile, affinities, client_el=client_el, features=features)
        self._max_intid: Final = max_intid
        self._reserved_intids: Final = frozenset(reserved_intids)
        self.settling: Final[set[int]] = set()
        """SPIs of which the owner has not told the GIC yet that their handlers have completed: for STATUS they still
        run. The owner's to fill."""

    def events(self) -> tuple[EventDescription, ...]:
        """All events that there are now: those of the machine description, and slots with a bound interrupt."""
        return self.profile.events + tuple(slot.description for slot in self._slots.values() if slot.intid)

    def describe(self, event: int) -> EventDescription:
        """The description of an event.

        Raises:
            UsageError: there is no such event; the message lists those that exist.
        """
        events = self.events()
        for description in events:
            if description.number == event:
                return description
        known = ", ".join(f"{e.number:#x} ({e.name})" for e in events)
        raise UsageError(f"there is no event {event:#x}; this guest has {known}")

    def bindable(self, intid: int) -> EventType | None:
        """Type of the event that this interrupt would be, or None: it cannot be bound (5.1.14)."""
        if not FIRST_PPI <= intid <= self._max_intid or intid in self._reserved_intids:
            return None
        return EventType.PRIVATE if intid < FIRST_SPI else EventType.SHARED

    def is_bound(self, intid: int) -> bool:
        """Whether a slot has it, registered or not."""
        return self._slot_of(intid) is not None

    def event_of(self, intid: int) -> int | None:
        """The event that an interrupt is bound to; None: none."""
        slot = self._slot_of(intid)
        return None if slot is None else slot.description.number

    def wanted(self, intid: int, pe: int) -> Wanted:
        """What the GIC is to do with an interrupt, of PE `pe` if it is a PPI."""
        slot = self._slot_of(intid)
        if slot is None:
            return Wanted.FREE
        inst = self._instance_of(slot, pe)
        if inst.state == UNREGISTERED:
            return Wanted.FREE
        return Wanted.HOLD if inst.pending or inst.state & BIT_RUNNING else Wanted.LISTEN

    def interrupt(self, intid: int, pe: int) -> bool:
        """A bound interrupt was taken on `pe`, which is in an exchange: it triggers its event.

        Returns:
            False: no event is registered for it.
        """
        slot = self._slot_of(intid)
        if slot is None:
            return False
        inst = self._instance_of(slot, pe)
        if TRIGGER_RESULT[inst.state] == SUCCESS:
            inst.accepted += 1
            if inst.pending:
                inst.merged += 1
            else:
                inst.pending = True
                if inst.state == ENABLED:
                    self._arm(inst, pe, pe)
                else:
                    self._waits(inst)
        return inst.state != UNREGISTERED

    def refuse(self, intid: int, pe: int) -> int:
        """EVENT_REGISTER of an interrupt that the owner found it cannot take over: undone; the call's result."""
        slot = self._slot_of(intid)
        if slot is not None:
            self._apply(self._instance_of(slot, pe), Action.UNREGISTER, pe)
        return DENIED

    def _bind(self, intid: int) -> int:
        """INTERRUPT_BIND: the event's number, the same one if it is bound already."""
        kind = self.bindable(intid)
        if kind is None:
            return INVALID_PARAMETERS
        slot = self._slot_of(intid)
        if slot is None:
            slot = next((s for s in self._slots.values() if not s.intid and s.description.type == kind), None)
            if slot is None:
                return OUT_OF_RESOURCE
            self._assign(slot, intid)
        return slot.description.number

    def _assign(self, slot: Slot, intid: int) -> None:
        """Bind `intid`, 0 for nothing, to a slot whose number the guest has: calls on every PE know it from now on."""
        slot.intid = intid
        slot.known = True
        for p in self._pes:
            p.instances[slot.description.number] = self._instance_of(slot, p.index)

    def _release(self, event: int) -> int:
        """INTERRUPT_RELEASE: DENIED while any PE has the event registered or its handler running."""
        slot = self._slots.get(event)
        if slot is None or not slot.intid:
            return INVALID_PARAMETERS
        for inst in self._instances_of(slot):
            result = STEP[Action.RELEASE][inst.state][0]
            if result != SUCCESS:
                return result
        slot.intid = 0
        return SUCCESS

    def _release_all(self) -> int:
        """What SHARED_RESET does to bindings, private ones included: each that can be released is (TFA)."""
        results = [self._release(number) for number, slot in self._slots.items() if slot.intid]
        return next((result for result in results if result != SUCCESS), SUCCESS)

    def _slot_of(self, intid: int) -> Slot | None:
        return next((slot for slot in self._slots.values() if slot.intid == intid), None) if intid else None

    def _instance_of(self, slot: Slot, pe: int) -> Instance:
        number = slot.description.number
        shared = self._shared.get(number)
        return self._pes[pe].private[number] if shared is None else shared

    def _instances_of(self, slot: Slot) -> list[Instance]:
        shared = self._shared.get(slot.description.number)
        return [self._instance_of(slot, p.index) for p in self._pes] if shared is None else [shared]
