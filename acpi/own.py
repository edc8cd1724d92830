"""The tables that announce our firmware: SDEI, HEST with generic error sources, AGDI, BERT, and an SSDT by which it
says that it comes first when hardware errs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.hed import hed_table
from qemu_sdei.acpi.osc import osc_table
from qemu_sdei.acpi.table import Oem, Table
from qemu_sdei.acpi.tables.agdi import Agdi
from qemu_sdei.acpi.tables.bert import Bert
from qemu_sdei.acpi.tables.gas import Gas
from qemu_sdei.acpi.tables.hest import Ghes, GhesV2, Hest, Notification, NotificationType
from qemu_sdei.acpi.tables.sdei import Sdei

MIN_BLOCK: Final = 20
"""Bytes of a Generic Error Status Block without entries (ACPI 6.5 18.3.2.7.1)."""


@dataclass(frozen=True)
class GhesSource:
    """A generic hardware error source: its errors are made known by an SDEI event, or as `notification` says."""

    event: int | None
    """SDEI event number, not 0; None: see `notification`."""
    status_address: int
    """Physical address, a multiple of 8, of the 8 bytes that hold the address of the error status block."""
    block_length: int
    """Bytes of the error status block, at least 20."""
    read_ack_address: int | None = None
    """Physical address, a multiple of 8, of the 8-byte read-ack register; None for a source of type 9, without one."""
    notification: Notification | None = None
    """In place of an event."""
    source_id: int | None = None
    """None: the lowest that is free."""
    raw_length: int | None = None
    """Max Raw Data Length in bytes; None: as many as the block has."""
    records: int = 1
    """Number Of Records To Preallocate."""
    sections: int = 1
    """Max Sections Per Record."""
    enabled: bool = True

    @property
    def notified(self) -> Notification:
        """How its errors are made known. Raises TableError: it has not just one of event and notification."""
        if (self.event is None) is (self.notification is None):
            raise TableError("a source has either an event or a notification", signature="HEST", field="notification")
        return Notification.sdei(self.event) if self.event is not None else self.notification or Notification()


@dataclass(frozen=True)
class BootErrors:
    """Where the errors of the boot before are."""

    address: int
    """Physical address, a multiple of 8, of error status blocks one behind the other; memory that is reserved."""
    length: int
    """Bytes, at least 20. What follows the last block is 0."""


def own_tables(
    *,
    oem: Oem | None = None,
    sdei: bool = True,
    ghes: Sequence[GhesSource] = (),
    agdi_event: int | None = None,
    agdi_gsiv: int | None = None,
    boot_errors: BootErrors | None = None,
    firmware_first: bool = False,
) -> list[Table]:
    """The tables that announce our firmware, in the order SDEI, HEST, AGDI, BERT, SSDT; with sources that are notified
    by GSIV another SSDT, whose devices take the interrupts (`qemu_sdei.acpi.hed`).

    Args:
        oem: OEM and creator fields of all of them.
        sdei: whether there is an SDEI table. Without it Linux does not look for SDEI.
        ghes: the error sources; ids that are not given count from 0. Without any there is no HEST.
        agdi_event: SDEI event that asks for a diagnostic dump and reset.
        agdi_gsiv: interrupt that asks for it: alone (mode 1), or beside the event (mode 2). Neither: no AGDI.
        boot_errors: where errors of the boot before are. None: no BERT.
        firmware_first: whether there is an SSDT with the method `_OSC` (`qemu_sdei.acpi.osc`): a machine has one of it.

    Raises:
        TableError: an event is 0 or used twice, an id or address is used twice or misaligned, a block is too short.
    """
    oem = oem or Oem()
    tables: list[Table] = [Sdei(oem=oem)] if sdei else []
    users: dict[int, str] = {}
    if ghes:
        sources = []
        _apart(ghes)
        for number, (source, source_id) in enumerate(zip(ghes, _ids(ghes), strict=True)):
            if source.event is not None:
                _claim(users, source.event, "HEST", f"sources[{number}].notification.vector")
            elif source.notified.type == NotificationType.SDEI:
                _claim(users, source.notified.vector, "HEST", f"sources[{number}].notification.vector")
            sources.append(_source(number, source, source_id))
        tables.append(Hest(sources=tuple(sources), oem=oem))
    if agdi_event is not None:
        _claim(users, agdi_event, "AGDI", "sdei_event")
    if agdi_event is not None and agdi_gsiv is not None:
        tables.append(Agdi.by_both(agdi_event, agdi_gsiv, oem=oem))
    elif agdi_event is not None:
        tables.append(Agdi.by_sdei(agdi_event, oem=oem))
    elif agdi_gsiv is not None:
        tables.append(Agdi.by_interrupt(agdi_gsiv, oem=oem))
    if boot_errors is not None:
        tables.append(_bert(boot_errors, oem))
    if firmware_first:
        tables.append(osc_table(oem))
    lines = [each.notified.vector for each in ghes if each.notified.type == NotificationType.GSIV]
    if lines:
        tables.append(hed_table(lines, oem))
    return tables


def _bert(place: BootErrors, oem: Oem) -> Bert:
    if place.address <= 0 or place.address % 8:
        raise TableError(
            f"{place.address:#x} is no address of a boot error region: it must be a multiple of 8 and not 0",
            signature="BERT", field="region_address",
        )  # fmt: skip
    if place.length < MIN_BLOCK:
        raise TableError(
            f"an error status block has at least {MIN_BLOCK} bytes, not {place.length}",
            signature="BERT", field="region_length",
        )  # fmt: skip
    return Bert(region_address=place.address, region_length=place.length, oem=oem)


def _claim(users: dict[int, str], event: int, signature: str, field: str) -> None:
    if event == 0:
        raise TableError(
            "event 0 is the software-signalled one (DEN0054 4.3): take an event that the platform signals",
            signature=signature, field=field,
        )  # fmt: skip
    if event in users:
        raise TableError(f"event {event:#x} is already that of {users[event]}", signature=signature, field=field)
    users[event] = f"{signature} {field}"


def _ids(ghes: Sequence[GhesSource]) -> list[int]:
    """The id of each."""
    taken: dict[int, int] = {}
    for number, source in enumerate(ghes):
        if source.source_id is None:
            continue
        if source.source_id in taken:
            raise TableError(
                f"id {source.source_id} is already that of sources[{taken[source.source_id]}]",
                signature="HEST", field=f"sources[{number}].source_id",
            )  # fmt: skip
        taken[source.source_id] = number
    free = (number for number in range(1 << 16) if number not in taken)
    return [next(free) if source.source_id is None else source.source_id for source in ghes]


def _apart(ghes: Sequence[GhesSource]) -> None:
    """Refuse registers that are in the same place: what is written to one would be read from the other."""
    users: dict[int, str] = {}
    for number, source in enumerate(ghes):
        for name, address in (("error_status_address", source.status_address), ("read_ack", source.read_ack_address)):
            # All are of 8 bytes and aligned, so they are the same or do not touch.
            if address is None:
                continue
            field = f"sources[{number}].{name}.address"
            if address in users:
                raise TableError(
                    f"{address:#x} is already that of {users[address]}: each register has a place of its own",
                    signature="HEST", field=field,
                )  # fmt: skip
            users[address] = field


def _source(number: int, source: GhesSource, source_id: int) -> Ghes:
    field = f"sources[{number}]"
    addresses = [("error_status_address", source.status_address)]
    if source.read_ack_address is not None:
        addresses.append(("read_ack", source.read_ack_address))
    for name, address in addresses:
        if address <= 0 or address % 8:
            raise TableError(
                f"{address:#x} is no address of 8 bytes: it must be a multiple of 8 and not 0",
                signature="HEST", field=f"{field}.{name}.address",
            )  # fmt: skip
    if source.block_length < MIN_BLOCK:
        raise TableError(
            f"an error status block has at least {MIN_BLOCK} bytes, not {source.block_length}",
            signature="HEST", field=f"{field}.block_length",
        )  # fmt: skip
    values: dict[str, Any] = {
        "source_id": source_id,
        "enabled": int(source.enabled),
        "records": source.records,
        "max_sections": source.sections,
        "max_raw_length": source.block_length if source.raw_length is None else source.raw_length,
        "error_status_address": Gas.memory(source.status_address),
        "notification": source.notified,
        "block_length": source.block_length,
    }
    if source.read_ack_address is None:
        return Ghes(**values)
    return GhesV2(**values, read_ack=Gas.memory(source.read_ack_address))
