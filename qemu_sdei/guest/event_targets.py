"""Which event an injection means, whether the guest listens to it, and why not, where that can be known."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from qemu_sdei import rundir
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import NotDeliveredError, ProtocolError, SdeiError, UsageError
from qemu_sdei.guest.control_client import ControlClient

_LOOK: Final = 0.2
"""Seconds between two looks at what is registered."""
_SDEI: Final = "SDEI_"
"""What the names of its calls begin with."""


def number(control: ControlClient, event: int | str) -> int:
    """The number of an event that is named by it or by its name.

    Raises:
        UsageError: this guest has none of that name.
    """
    if isinstance(event, int):
        return event
    try:
        return int(event, 0)
    except ValueError:
        pass
    names = {str(each["name"]): int(each["event"]) for each in _events(control)}
    if event not in names:
        raise UsageError(f"there is no event named {event!r}; this guest has {', '.join(names) or 'none (--no-sdei)'}")
    return names[event]


def _events(control: ControlClient) -> list[Mapping[str, Any]]:
    events = control.status().get("events")
    if not isinstance(events, list):
        raise ProtocolError("the backend's answer to status is not of the protocol's form")
    return events


def listens(control: ControlClient, event: int, vcpu: int | None) -> bool:
    """Whether the guest has registered and enabled `event`, a private one on `vcpu`.

    Raises:
        UsageError: there is no such event.
    """
    found = next((each for each in _events(control) if each["event"] == event), None)
    if found is None:
        raise UsageError(f"there is no event {event:#x} in this guest")
    return any(
        each["registered"] and each["enabled"] and (each["pe"] is None or vcpu in (None, each["pe"]))
        for each in found["instances"]
    )


def wait_until_listens(
    control: ControlClient, event: int, vcpu: int | None, seconds: float, *, tell: Callable[[str], None] | None = None
) -> None:
    """Return when the guest has registered and enabled `event`.

    Args:
        control: its backend.
        event: number.
        vcpu: that of a private event; None: any.
        seconds: how long to wait at most.
        tell: is told what is waited for.

    Raises:
        NotDeliveredError: it has not within `seconds`; the message says why, where that can be known.
    """
    end = time.monotonic() + seconds
    while not listens(control, event, vcpu):
        if tell is not None:
            tell(f"waiting until the guest has registered and enabled event {event:#x}")
            tell = None
        if time.monotonic() > end:
            why = why_not(control, event, control.path.parent)
            raise NotDeliveredError(f"event {event:#x} was not registered and enabled within {seconds:g} s{why}")
        time.sleep(_LOOK)


def why_not(control: ControlClient, event: int, directory: Path) -> str:
    """Why nobody has registered `event`, as the end of a message; "" if that is not known, or somebody has.

    Args:
        control: the guest's backend.
        event: number.
        directory: its run directory.
    """
    try:
        status = control.status()
        found = next((each for each in status["events"] if each["event"] == event), None)
        if found is None or any(each["registered"] for each in found["instances"]):
            return ""
        boot = GuestConfig.from_json((directory / rundir.CONFIG).read_bytes()).boot
        sources = {each.get("event") for each in control.ras_sources()}
        called = any(name.startswith(_SDEI) for each in status["pes"] for name in each["calls"])
    except (OSError, SdeiError, KeyError, TypeError):
        return ""
    if boot.get("kind") != "linux":
        return ""
    return f": {_reason(str(found['name']), boot.get('tables') == 'acpi', event in sources, called)}"


def _reason(name: str, acpi: bool, of_a_source: bool, called: bool) -> str:
    if not called:
        return (
            "its kernel has made no SDEI call yet: it still boots, or lacks CONFIG_ARM_SDE_INTERFACE "
            "(`--when-registered S` waits)"
        )
    if of_a_source:
        return "an error source has it: a kernel with CONFIG_ACPI_APEI_GHES registers it when it boots"
    if name.startswith("ghes") and not acpi:
        return "error sources are announced by ACPI only: start the guest with --ras"
    return (
        "no driver of a stock kernel registers it (those of error sources and of AGDI are, by ACPI): "
        "`run --client` brings a module that does"
    )
