"""Where a firmware profile meddles with power: what the parts that start, stop and reset CPUs ask before they do.

Without a profile nobody is set here, and each does what the specifications say.
"""

from __future__ import annotations

from typing import Protocol


class PowerHooks(Protocol):
    """What is asked of a profile."""

    def keeps_priorities(self, pe: int, wakes: bool) -> bool:
        """A CPU comes back from a power-down (`wakes`: of CPU_SUSPEND). Whether it is left its active priorities."""

    def kernel_keeps_priorities(self, pe: int) -> bool:
        """The same of a kernel that another one has started, on the CPU that runs it."""

    def came_up(self, pe: int) -> bool:
        """A CPU is on and about to be sent to its entry point. False: it stays in EL3."""

    def woke(self, pe: int) -> None:
        """A CPU comes back from CPU_SUSPEND."""

    def machine_resets(self) -> None:
        """CPU 0 has come out of reset; nothing has been forgotten yet."""


class Quirks:
    """What a profile does to the power of one guest's CPUs.

    Attributes:
        stuck: CPUs that stay in EL3, whatever their power state. The object stays the same.
        hooks: who is asked; None: nobody.
    """

    def __init__(self) -> None:
        self.stuck: set[int] = set()
        self.hooks: PowerHooks | None = None
