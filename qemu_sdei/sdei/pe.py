"""One PE as the dispatcher sees it."""

from __future__ import annotations

from typing import Final

from qemu_sdei.sdei.constants import MAX_NESTING
from qemu_sdei.sdei.context import Regs, new_regs
from qemu_sdei.sdei.events import EventDescription, EventType, Instance, Slot

CLOSED: Final = 3
"""Gate of a PE that is masked or off: above every rank."""


class ProcessingElement:
    """Power, mask, the stack of running handlers with their saved contexts, and the private instances.

    `gate` says in one number what the PE takes: an armed instance is deliverable iff `instance.rank > gate`. It is the
    rank of the innermost handler (0: none runs), or CLOSED.
    """

    __slots__ = (
        "_fixed",
        "affinity",
        "armed",
        "frames",
        "gate",
        "index",
        "instances",
        "masked",
        "on",
        "private",
        "running",
    )

    def __init__(
        self,
        index: int,
        affinity: int,
        events: tuple[EventDescription, ...],
        slots: dict[int, Slot],
        shared: dict[int, Instance],
    ) -> None:
        self.index: int = index
        self.affinity: int = affinity
        self.on: bool = False
        self.masked: bool = True
        self.gate: int = CLOSED
        self.running: list[Instance] = []
        """Innermost last: a normal one, a critical one, or a normal one below a critical one."""
        self.frames: tuple[Regs, ...] = tuple(new_regs() for _ in range(MAX_NESTING))
        """The context that the n-th of `running` interrupted."""
        self.private: dict[int, Instance] = {
            e.number: Instance(e, index, slots.get(e.number)) for e in events if e.type == EventType.PRIVATE
        }
        self.instances: dict[int, Instance] = {}
        """Everything that a call on this PE can name: what is fixed, and slots whose numbers were handed out."""
        self._fixed: dict[int, Instance] = {
            number: inst for number, inst in (self.private | shared).items() if inst.slot is None
        }
        self.forget_slots()
        self.armed: list[Instance] = []

    def forget_slots(self) -> None:
        """No number of a slot was handed out: calls know what is fixed, and nothing else."""
        self.instances.clear()
        self.instances.update(self._fixed)

    def set_gate(self) -> None:
        """Recompute the gate from power, mask and running handlers."""
        if self.masked or not self.on:
            self.gate = CLOSED
        else:
            self.gate = self.running[-1].rank if self.running else 0
