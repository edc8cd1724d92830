"""How a guest is told of an error by other means than SDEI: what `error_sources.py` asks of them, in one protocol.

`Notifier` is what makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a notification.

    Attributes:
        made: the guest has it; None: it waits still, but not here: the guest has moved.
        vcpu: which one came for it.
        why: what stood in the way.
        pc, pstate: what an abort has interrupted.
    """

    made: bool | None
    vcpu: int | None = None
    why: str | None = None
    pc: int = 0
    pstate: int = 0


Then = Callable[[Outcome], None]


class Notifications(Protocol):
    """What makes a guest look at the error sources that SDEI does not tell of."""

    def why_no_sea(self, pe: int | None) -> str | None:
        """Why vCPU `pe` (None: any) cannot take a synchronous external abort now; None: it can, or soon will."""

    def sea(self, pe: int | None, *, address: int | None = None, limit: float = ..., then: Then | None = None) -> None:
        """Have a vCPU take a synchronous external abort, when it is where it can.

        Args:
            pe: None: the first that can.
            address: virtual, what FAR is to hold; None: FAR is not valid.
            limit: seconds in which such a moment is to come.
            then: called once, later, with what became of it.

        Raises:
            SdeiError: none can; nothing was done.
        """

    def why_no_interrupt(self, intid: int) -> str | None:
        """Why nobody would take SPI `intid` if it were pending now; None: somebody would. As it was when a vCPU looked
        at it last.
        """

    def waits(self, intid: int | None) -> bool:
        """Whether an interrupt, or an abort (None), has been asked for and not been made yet."""

    def refresh(self, intids: Iterable[int], then: Callable[[], object]) -> None:
        """Have a vCPU look at these interrupts; then call `then`, now or later."""

    def interrupt(self, intid: int, *, then: Then | None = None) -> None:
        """Set SPI `intid` pending. `then`: as of `sea`. Raises SdeiError: it cannot be; nothing was done."""
