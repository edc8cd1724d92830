"""How a guest is told of an error by other means than SDEI: what `error_sources.py` asks of them, in one protocol."""

from __future__ import annotations

from typing import Final, Protocol

from qemu_sdei.errors import NotDeliveredError

_SEA: Final = "a synchronous external abort cannot be made by this version"
_INTERRUPT: Final = "an interrupt cannot be made by this version"


class Notifications(Protocol):
    """What makes a guest look at the error sources that SDEI does not tell of."""

    def why_no_sea(self, pe: int | None) -> str | None:
        """Why vCPU `pe` (None: any) cannot take a synchronous external abort now; None: it can, or soon will."""

    def sea(self, pe: int | None, *, address: int | None = None) -> int:
        """Have a vCPU take a synchronous external abort; it may do so later. Returns which one.

        Args:
            pe: None: any that can.
            address: virtual, what FAR is to hold; None: FAR is not valid.

        Raises:
            NotDeliveredError: none can; nothing was done.
        """

    def why_no_interrupt(self, intid: int) -> str | None:
        """Why nobody would take SPI `intid` if it were pending now; None: somebody would."""

    def interrupt(self, intid: int) -> None:
        """Set SPI `intid` pending. Raises NotDeliveredError: it cannot be; nothing was done."""


class NoNotifications:
    """`Notifications` where nothing makes them."""

    def why_no_sea(self, pe: int | None) -> str | None:
        """See `Notifications`."""
        return _SEA

    def sea(self, pe: int | None, *, address: int | None = None) -> int:
        """See `Notifications`."""
        raise NotDeliveredError(_SEA)

    def why_no_interrupt(self, intid: int) -> str | None:
        """See `Notifications`."""
        return _INTERRUPT

    def interrupt(self, intid: int) -> None:
        """See `Notifications`."""
        raise NotDeliveredError(_INTERRUPT)
