"""An NMI for a guest: what of it would take one, and which kernel option would bring what it has not.

On x86 a monitor injects an NMI, and every kernel has a handler for it. On arm64 there is none that every kernel has,
but several that one may have: AGDI, which asks for a diagnostic dump and reset, by an SDEI event or an interrupt;
event 0, by which vCPUs signal each other; a watchdog's interrupt that a driver has bound to an event.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.sdei.dispatcher import Dispatcher
from qemu_sdei.sdei.machine_description import MachineDescription

AGDI: Final = "agdi"
AGDI_INTERRUPT: Final = "agdi-interrupt"
SOFTWARE: Final = "software"
WATCHDOG: Final = "watchdog"
WAYS: Final = (AGDI, AGDI_INTERRUPT, SOFTWARE, WATCHDOG)
"""In the order in which they are taken."""
_BRINGS: Final = {
    AGDI: "CONFIG_ACPI_AGDI brings a handler (Linux 5.18 or newer, booted by ACPI)",
    AGDI_INTERRUPT: "CONFIG_ACPI_AGDI brings a handler (Linux of 2026 or newer, booted by ACPI)",
    SOFTWARE: "CONFIG_ARM_SDEI_NMI brings a handler (Linux 7.3 or newer)",
    WATCHDOG: "a driver that binds its watchdog's interrupt brings one (CONFIG_SDEI_WATCHDOG of openEuler and others)",
}


@dataclass(frozen=True, slots=True)
class Way:
    """How a guest can be given an NMI.

    Attributes:
        by: one of `WAYS`.
        event: the event that is triggered; None: it is an interrupt.
        intid: the interrupt, if it is one.
        vcpu: which one takes it; None: whichever.
    """

    by: str
    event: int | None = None
    intid: int | None = None
    vcpu: int | None = None


def event_ways(dispatcher: Dispatcher, on: Collection[int], vcpu: int | None) -> dict[str, Way | str]:
    """For each of `WAYS` that is an event how it is given; or why it cannot be, in a sentence.

    Args:
        dispatcher: SDEI as the guest has set it up.
        on: the vCPUs that are on.
        vcpu: the one that is meant; None: any.
    """
    events = {event["event"]: event for event in dispatcher.status()["events"]}
    agdi = [events[number] for number in dispatcher.profile.for_acpi("agdi")]
    bound = [event for event in events.values() if event.get("intid")]
    return {
        AGDI: _way(AGDI, agdi, on, vcpu, "the machine description has no event for AGDI"),
        SOFTWARE: _way(SOFTWARE, [events[0]], on, vcpu, ""),
        WATCHDOG: _way(WATCHDOG, bound, on, vcpu, "no interrupt is bound to an event"),
    }


def _way(by: str, events: list[Mapping[str, Any]], on: Collection[int], vcpu: int | None, none: str) -> Way | str:
    for event in events:
        for instance in event["instances"]:
            pe = instance["pe"]
            if not instance["registered"] or not instance["enabled"]:
                continue
            if pe is None:
                return Way(by, event["event"], vcpu=vcpu)
            if pe in on and vcpu in (None, pe):
                return Way(by, event["event"], vcpu=pe)
    if not events:
        return none
    names = " or ".join(f"event {event['event']:#x}" for event in events[:3])
    private = all(event["type"] == "private" for event in events)
    where = f" on vCPU {vcpu}" if vcpu is not None and private else ""
    registered = any(
        instance["registered"] and (instance["pe"] is None or vcpu in (None, instance["pe"]))
        for event in events
        for instance in event["instances"]
    )
    return f"{names} is {'registered but not enabled' if registered else 'not registered'}{where}"


def interrupt_way(profile: MachineDescription) -> Way | str:
    """AGDI by an interrupt, if the machine description has one; whether the guest has enabled it, the GIC knows."""
    if profile.agdi_interrupt is None:
        return "the machine description has no interrupt for AGDI"
    return Way(AGDI_INTERRUPT, intid=profile.agdi_interrupt)


def nothing(found: Mapping[str, Way | str]) -> str:
    """The message where no way is open. `found`: why not, of each that was tried."""
    asked = [by for by in WAYS if isinstance(found.get(by), str)]
    if len(asked) > 1:  # it says the same twice, of the same kernel option
        missing = "the machine description has no interrupt for AGDI"
        asked = [by for by in asked if not (by == AGDI_INTERRUPT and found[by] == missing)]
    parts = [f"{by}: {found[by]}; {_BRINGS[by]}" for by in asked]
    return "nothing in the guest takes an NMI\n" + "\n".join(f"  {part}" for part in parts)
