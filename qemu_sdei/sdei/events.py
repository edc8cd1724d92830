"""An event: its description, and its state for a vCPU (an instance)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from qemu_sdei.sdei.transitions import UNREGISTERED


class EventType(IntEnum):
    """Value of EVENT_GET_INFO(0)."""

    PRIVATE = 0
    SHARED = 1


class Priority(IntEnum):
    """Value of EVENT_GET_INFO(2)."""

    NORMAL = 0
    CRITICAL = 1


@dataclass(frozen=True, slots=True)
class EventDescription:
    """What is fixed about an event: it comes from the machine description, or is a slot for a bound interrupt."""

    number: int
    name: str
    type: EventType = EventType.PRIVATE
    priority: Priority = Priority.NORMAL
    signalable: bool = False
    """True: EVENT_SIGNAL accepts it (EVENT_GET_INFO(1) then answers 0)."""
    acpi: str = ""
    """What ACPI tables name it for: "ghes" (an error source of the HEST), "agdi", or nothing."""


ANY_PE: Final = -1


class Slot:
    """A place for one bound interrupt: an event number that means something while an interrupt is bound to it."""

    __slots__ = ("description", "intid", "known")

    def __init__(self, description: EventDescription) -> None:
        self.description = description
        self.intid = 0
        """What is bound (16 and up), or 0: the slot is free."""
        self.known = False
        """INTERRUPT_BIND has returned the number since the machine's reset. Before that no call knows it."""


class Instance:
    """One instance of an event: per PE for a private event, one for all PEs for a shared event.

    `armed` is pending and enabled and not running: all of the delivery rule that the event itself knows. Armed
    instances stand in a list of their PE (or of the dispatcher, when shared), ordered by `order`; that is all that
    delivery ever looks at.
    """

    __slots__ = (
        "accepted",
        "argument",
        "armed",
        "asked",
        "delivered",
        "description",
        "dropped",
        "entry",
        "merged",
        "number",
        "order",
        "pe",
        "pending",
        "rank",
        "running_on",
        "shared",
        "signalable",
        "slot",
        "state",
        "target",
    )

    def __init__(self, description: EventDescription, pe: int, slot: Slot | None = None) -> None:
        self.description = description
        self.slot: Slot | None = slot
        """Of an event that an interrupt can be bound to; all PEs' instances have the same one."""
        self.number: int = description.number
        self.shared: bool = description.type == EventType.SHARED
        self.signalable: bool = description.signalable
        self.rank: int = int(description.priority) + 1
        """1 normal, 2 critical: a PE takes it iff this is above its gate."""
        self.order: int = (2 - self.rank) << 32 | self.number
        """Critical before normal, then the lowest number (the order within a class is IMPLEMENTATION DEFINED)."""
        self.pe: int = pe
        """The PE of a private instance, ANY_PE of a shared one."""
        self.pending: bool = False
        self.count_afresh()
        self.clear()

    def count_afresh(self) -> None:
        """Forget what became of triggers, but for one that is pending.

        At any time `accepted` is the sum of `merged`, `dropped`, `delivered`, and 1 if one is pending.
        """
        self.accepted: int = int(self.pending)
        """Triggers that did not fail."""
        self.merged: int = 0
        """It was pending already: one delivery answers both (DEN0054 5.1.16.1)."""
        self.dropped: int = 0
        """Pending, and then unregistered or reset."""
        self.delivered: int = 0
        """The handler was entered."""

    def clear(self) -> None:
        """Back to what it is before anybody registered it; counts go on."""
        self.state: int = UNREGISTERED
        self.dropped += self.pending
        self.pending = False
        self.armed: bool = False
        self.entry: int = 0
        self.argument: int = 0
        self.target: int = self.pe
        """The only PE that may take it, or ANY_PE (RM_ANY)."""
        self.running_on: int = ANY_PE
        """The PE whose handler runs, while the state has its running bit."""
        self.asked: int = ANY_PE
        """RM_ANY, armed: the PE that is expected to take it. When that PE closes its gate it must hand over."""


def by_order(instance: Instance) -> int:
    """Sort key of the lists of armed instances."""
    return instance.order
