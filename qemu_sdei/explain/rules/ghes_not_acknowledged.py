"""An error status block that was filled and not read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qemu_sdei.explain.delivery import waiting
from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import ErrorBlock, Event, Picture
from qemu_sdei.explain.rules.registry import lasts, rule
from qemu_sdei.explain.words import ago

_SEVERITIES: Final = {0: "recoverable", 1: "fatal", 2: "corrected", 3: "informational"}


@rule
def ghes_not_acknowledged(picture: Picture, history: History) -> Iterator[Finding]:
    """ACPI 18.3.2.8: the operating system sets the read-ack register when it has read the block."""
    for block in picture.errors:
        if block.acknowledged and not block.status:
            continue
        event = picture.event(block.event)
        if not any(instance.registered or instance.running for instance in event.instances):
            continue  # nobody will read it: see hest_event_unregistered
        entered = history.entered(event.number, None)
        triggered = history.triggered(event.number, None)
        if entered is not None and not lasts(history.age(entered)):
            continue
        title, text, todo = _told(picture, history, block, event)
        severity = _SEVERITIES.get(block.severity, f"{block.severity:#x}")
        said = [line.strip() for line in picture.console if "GHES" in line or "[Firmware" in line][-3:]
        yield Finding(
            rule="ghes-not-acknowledged",
            weight=Weight.ERROR if triggered is not None or entered is not None else Weight.WARNING,
            title=title,
            text=text + " While it is not acknowledged no further error of this source can be reported.",
            todo=todo,
            evidence=(
                f"error source {block.source}: block status {block.status:#x}, severity {severity}, "
                f"read-ack register {int(block.acknowledged)}, address register {block.address:#x}",
                *said,
            ),
            references=("ACPI 6.5, 18.3.2.7 and 18.3.2.8", "Linux drivers/acpi/apei/ghes.c, ghes_clear_estatus()"),
            about=frozenset({f"block {block.source}"}),
        )


def _told(picture: Picture, history: History, block: ErrorBlock, event: Event) -> tuple[str, str, str]:
    """Title, text, and what is to be done."""
    title = f"The error of source {block.source} was never acknowledged"
    name = picture.called(event.number)
    name = name[:1].upper() + name[1:]
    entered = history.entered(event.number, None)
    for wait in waiting(picture):
        if wait.event.number == event.number:
            return title, f"{name} is pending, and nobody has read the block: {wait.why}.", wait.todo + "."
    running = next((i.running_on for i in event.instances if i.running), None)
    if running is not None:
        text = f"Its handler, entered {ago(history.age(entered), history.reach())} on vCPU {running}, has not ended."
        return title, text, ""
    if entered is None:
        text = f"{name}, which says that there is something to read, was not triggered since the trace began"
        return (
            title,
            f"{text} ({ago(None, history.reach())}).",
            f"Trigger it: `qemu-sdei inject {picture.guest} --event {event.number:#x}`.",
        )
    text = (
        f"{name} was handled {ago(history.age(entered))}, and its handler ended without setting the read-ack register."
    )
    if block.address != block.expected:
        text += f" The source's address register holds {block.address:#x} in place of {block.expected:#x}, where the "
        text += "block is: so the kernel found no error there, and Linux does not acknowledge then."
        return title, text, f"Firmware has to keep the block's address ({block.expected:#x}) in the address register."
    text += " The kernel's GHES driver did not take it: what it said about that is on the console, if anything."
    return (
        title,
        text,
        "The handler has to read the block, clear its status and write the read-ack register (18.3.2.8).",
    )
