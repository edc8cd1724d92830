"""An event that the HEST announces, and that no kernel has registered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import UNMASK, History
from qemu_sdei.explain.picture import Event, Picture
from qemu_sdei.explain.rules.registry import rule

_SAYS: Final = (
    "notified via SDE Interface is not supported",
    "GHES: HEST is not enabled",
    "HEST: Table parsing disabled",
)
_SETTLED: Final = 15_000_000_000
"""Nanoseconds after which a kernel that uses SDEI has registered what it will."""


@rule
def hest_event_unregistered(picture: Picture, history: History) -> Iterator[Finding]:
    """ACPI 18.3.2.9: notification type 11, software delegated exception."""
    if not picture.acpi:
        return
    for event in picture.events:
        if event.acpi != "ghes" or any(instance.registered or instance.running for instance in event.instances):
            continue
        said = [line.strip() for line in picture.console if any(words in line for words in _SAYS)][-3:]
        filled = [block for block in picture.errors if block.event == event.number and block.status]
        refused = any(r.get("event") == event.number and r.get("outcome") == "refused" for r in history.records)
        if not said and not filled and not refused and not _settled(history):
            continue
        yield _told(picture, history, event, said, bool(filled), refused)


def _told(picture: Picture, history: History, event: Event, said: list[str], filled: bool, refused: bool) -> Finding:
    sources = [block for block in picture.errors if block.event == event.number]
    text = f"The HEST says that errors are told by {picture.called(event.number)}, and no kernel has registered it"
    if not history.complete:
        text += " now"
    text += ": its GHES driver is missing, was switched off (ghes.disable=1, hest_disable), or was unbound; or the "
    text += "kernel lacks CONFIG_ACPI_APEI_GHES or CONFIG_ARM_SDE_INTERFACE, and says "
    text += '"notified via SDE Interface is not supported".'
    if filled:
        text += " An error lies in the status block, and nobody will read it."
    if refused:
        text += " A trigger of the event was refused for that."
    return Finding(
        rule="hest-event-unregistered",
        weight=Weight.ERROR if filled or refused else Weight.WARNING if said else Weight.NOTE,
        title=f"Nobody has registered {picture.called(event.number)}, which the HEST announces",
        text=text,
        todo="A kernel with these two options, without ghes.disable=1; its driver then calls SDEI_EVENT_REGISTER and "
        "SDEI_EVENT_ENABLE (DEN0054 5.1.2, 5.1.3).",
        evidence=(*said, *(f"error source {b.source}: block status {b.status:#x}" for b in sources if b.status)),
        references=("ACPI 6.5, 18.3.2.9", "Linux drivers/acpi/apei/ghes.c, ghes_probe()"),
        about=frozenset({f"hest {event.number}"} | {f"block {block.source}" for block in sources}),
        depth=2,
    )


def _settled(history: History) -> bool:
    """SDEI was taken into use, and long enough ago."""
    first = list(history.calls(None, UNMASK))
    age = history.age(first[-1]) if first else None
    return age is not None and age > _SETTLED
