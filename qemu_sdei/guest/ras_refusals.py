"""What cannot be injected, found before anything is written: one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.ras.addresses import addresses
from qemu_sdei.ras.block import Block
from qemu_sdei.ras.checks import Level, check
from qemu_sdei.ras.contradictions import contradictions

_WHY_NOT: Final = {
    "unread": "has a report that the guest has not read yet: wait, or give --force to write over it",
    "unacknowledged": "has a report that the guest has not acknowledged yet: wait, or give --force to write over it",
    "damaged": "is of no use: the guest has written over the address of its block; --force writes there all the same",
}
"""By state."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """State of an error source, as the backend reports it."""

    name: str
    """Name in the machine description."""
    id: int
    """Source Id in the HEST."""
    type: str
    """"ghes" or "ghes-v2" (ACPI 6.5 18.3.2.7, 18.3.2.8)."""
    notify: str
    """How the guest is notified: "sdei", "sea", "interrupt", "external" or "polled" (ACPI 6.5 18.3.2.9)."""
    event: int | None
    """"sdei": event number; else None."""
    interrupt: int | None
    """"interrupt": interrupt number (INTID); else None."""
    block: int
    """Size of the error status block in bytes."""
    state: str
    """"free": an error can be reported. "unread" or "unacknowledged": the guest has not handled the last one.
    "damaged": the guest has overwritten the block's address.
    """
    ready: bool
    """True: the guest would notice an error now."""
    reason: str | None
    """Why the guest would not notice an error; None: it would."""
    document: dict[str, Any]
    """The backend's answer, with the fields of `SourceStatus`."""

    @classmethod
    def of(cls, document: Any) -> SourceState:
        """Make it from `document`, the backend's answer for this source.

        Raises:
            ProtocolError: the answer is malformed.
        """
        try:
            found = cls(
                str(document["name"]),
                int(document["id"]),
                str(document["type"]),
                str(document["notify"]),
                document.get("event"),
                document.get("interrupt"),
                int(document["block"]),
                str(document["state"]),
                bool(document["ready"]),
                None if document.get("reason") is None else str(document["reason"]),
                dict(document),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ProtocolError("the backend's answer to ras_sources is not of the protocol's form") from None
        return found


def chosen(sources: list[SourceState], name: str | None, guest: str) -> SourceState:
    """The source that is meant: by its name, else the first that is ready, else the first. Raises `UsageError`."""
    if not sources:
        raise UsageError(f"guest {guest!r} has no error sources: start it with --ras, and a kernel that boots by ACPI")
    if name is None:
        return next((each for each in sources if each.ready), sources[0])
    for each in sources:
        if each.name == name:
            return each
    raise UsageError(f"there is no error source {name!r}: this guest has {', '.join(each.name for each in sources)}")


def refuse(source: SourceState, block: Block | None, size: int, *, ram: tuple[int, int], force: bool) -> None:
    """Raise `UsageError` if this cannot be reported by `source`.

    Args:
        source: it.
        block: the status block; None: bytes that are none, on purpose.
        size: bytes of it.
        ram: where the guest's RAM begins and ends.
        force: what a guest can be given all the same is given to it: an address that is no RAM, a severity that the
            section denies, lengths that are wrong, a block over one that was not read.
    """
    if size > source.block:
        raise UsageError(
            f"the record has {size} bytes, and the block of error source {source.name!r} has {source.block}: give that "
            "source a larger block in the events file (block = ...), or leave out sections"
        )
    if not source.ready and not force:
        reason = source.reason or "the guest would not notice a report"
        raise UsageError(f"error source {source.name!r} cannot report now: {reason}")
    if force:
        return
    if source.state != "free":
        raise UsageError(f"error source {source.name!r} {_WHY_NOT.get(source.state, 'is ' + source.state)}")
    if block is None:
        return
    for fault in check(block):
        if fault.level is Level.ERROR:
            raise UsageError(f"the record is wrong (--force injects it all the same): {fault.field}: {fault.message}")
    start, end = ram
    for each in block.entries:
        for words in contradictions(each):
            raise UsageError(f"{words}: give another --severity, or --force")
        for address in addresses(each.section):
            if not start <= address < end:
                raise UsageError(
                    f"address {address:#x} is no RAM of the guest, which has {start:#x} to {end - 1:#x}: give another "
                    "one, or --force"
                )
