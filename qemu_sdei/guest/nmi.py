"""An NMI for a guest, by the first way that the guest accepts: the counterpart of `virsh inject-nmi`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qemu_sdei.errors import ProtocolError
from qemu_sdei.guest.control_client import ControlClient

WAYS: Final = ("agdi", "agdi-interrupt", "software", "watchdog")
"""In the order in which they are tried."""


@dataclass(frozen=True)
class Nmi:
    """Result of an NMI."""

    by: str
    """"agdi": by the SDEI event of AGDI; "agdi-interrupt": by the interrupt of AGDI; "software": by event 0;
    "watchdog": by the event of an interrupt that the guest has bound.
    """
    event: int | None
    """Event number; None: it was no event."""
    intid: int | None
    """Interrupt number; None: it was no interrupt."""
    vcpu: int | None
    """Number of the vCPU that gets it; None: any."""
    outcome: str
    """"queued": the NMI is pending, or being delivered; "merged": it was pending already."""
    reason: str | None = None
    """Why it is not delivered yet."""


def give(control: ControlClient, vcpu: int | None = None, by: str | None = None) -> Nmi:
    """Give a guest an NMI.

    Args:
        control: its backend.
        vcpu: which one is to take it, as far as the way lets it be chosen; None: any.
        by: one of `WAYS`; None: the first that the guest has registered and enabled.

    Raises:
        NotDeliveredError: the guest takes none; the message says which kernel option would bring a handler.
        UsageError: there is no such vCPU or way.
    """
    found = control.nmi(vcpu, by=by)
    if not isinstance(found.get("by"), str) or not isinstance(found.get("outcome"), str):
        raise ProtocolError("the backend's answer to nmi is not of the protocol's form")
    return Nmi(**{name: found.get(name) for name in Nmi.__dataclass_fields__})  # type: ignore[arg-type]
