"""Rules for HEST (ACPI 6.5 18.3.2)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.acpi.rules import gas
from qemu_sdei.acpi.rules.registry import rules_for
from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.tables.hest import (
    AerEndpoint,
    CorrectedMachineCheck,
    Ghes,
    GhesV2,
    Hest,
    MachineCheck,
    NmiSource,
    Notification,
    NotificationType,
    OpaqueSource,
    Source,
)
from qemu_sdei.acpi.tables.hest_source import NO_SOURCE

MIN_BLOCK: Final = 20
"""Bytes of a Generic Error Status Block without entries."""
FIRMWARE_FIRST: Final = 1 << 0
GLOBAL: Final = 1 << 1
GHES_ASSIST: Final = 1 << 2


@rules_for(Hest)
def check(report: Report, table: Hest) -> None:
    """Check all sources, and how they refer to each other. What they share with others is looked at in `whole`.

    Errors: ids not unique; related source not there; `enabled` above 1; no records or sections; notification of a
    length other than 28 or a reserved type; SDEI event 0; no status address; register in a reserved space, of width 0
    or above 64; block below 20 bytes; no read-ack register, a write that changes nothing in it or goes beyond its
    width.
    Warnings: an acknowledgement by clearing bits (write 0, as Arm's reference platforms have it); access narrower than
    the register, misaligned address; polled with interval 0; bits both preserved and written; source type above 11.
    """
    _ids(report, table)
    for number, source in enumerate(table.sources):
        name = f"sources[{number}]"
        if isinstance(source, OpaqueSource):
            report.warning(f"{name}.type", f"source type {source.type} is not in ACPI 6.5")
            continue
        _common(report, name, source)
        if isinstance(source, Ghes):
            _ghes(report, name, source)
        elif isinstance(source, MachineCheck | CorrectedMachineCheck):
            report.reserved(f"{name}.flags", source.flags, 0xFF & ~(FIRMWARE_FIRST | GHES_ASSIST))
            if source.flags & FIRMWARE_FIRST and source.flags & GHES_ASSIST:
                report.error(f"{name}.flags", "GHES assist is only for a source that is not firmware first")
            for index, bank in enumerate(source.banks):
                report.reserved(f"{name}.banks[{index}].reserved", bank.reserved)
        elif isinstance(source, AerEndpoint):
            report.reserved(f"{name}.flags", source.flags, 0xFF & ~(FIRMWARE_FIRST | GLOBAL))
            if not source.flags & GLOBAL:
                report.reserved(f"{name}.bus", source.bus, 0xFF)


def _ids(report: Report, table: Hest) -> None:
    first: dict[int, int] = {}
    named = [(number, source) for number, source in enumerate(table.sources) if not isinstance(source, OpaqueSource)]
    for number, source in named:
        if source.source_id in first:
            other = f"sources[{first[source.source_id]}]"
            report.error(f"sources[{number}].source_id", f"source id {source.source_id} is already that of {other}")
        first.setdefault(source.source_id, number)
    for number, source in named:
        if isinstance(source, Ghes) and source.related_source_id != NO_SOURCE:
            name = f"sources[{number}].related_source_id"
            if source.related_source_id not in first:
                report.error(name, f"there is no source with the id {source.related_source_id}")
            elif source.related_source_id == source.source_id:
                report.error(name, f"the source is related to itself (no relation is {NO_SOURCE:#x})")


def _common(report: Report, name: str, source: Source) -> None:
    if isinstance(source, NmiSource):
        enabled = 1
    elif isinstance(source, MachineCheck | CorrectedMachineCheck | AerEndpoint | Ghes):
        enabled = source.enabled
    else:
        return
    if enabled > 1:
        report.error(f"{name}.enabled", f"it is {enabled}: only 0 and 1 can be")
    for field, value in (("records", source.records), ("max_sections", source.max_sections)):
        if value == 0:
            # Of a source that nobody uses it harms nobody.
            say = report.error if enabled else report.warning
            say(f"{name}.{field}", "it is 0: at least 1 is needed")
    for field in ("reserved", "reserved2"):
        value = getattr(source, field, 0)
        report.reserved(f"{name}.{field}", value)
    if isinstance(source, CorrectedMachineCheck):
        _notification(report, f"{name}.notification", source.notification)


def _ghes(report: Report, name: str, source: Ghes) -> None:
    report.reserved(f"{name}.flags", source.flags, 0xFF & ~GHES_ASSIST)
    _notification(report, f"{name}.notification", source.notification)
    if source.enabled and source.notification.type == NotificationType.POLLED and not source.notification.poll_interval:
        report.warning(f"{name}.notification.poll_interval", "it is 0: Linux does not poll such a source")
    if not source.enabled and not source.error_status_address:
        return
    if not source.error_status_address.address:
        report.error(f"{name}.error_status_address.address", "it is 0: there is no error status block")
    else:
        gas.check(report, f"{name}.error_status_address", source.error_status_address, plain_only=True)
    if source.block_length < MIN_BLOCK:
        report.error(
            f"{name}.block_length", f"{source.block_length} bytes: an error status block has at least {MIN_BLOCK}"
        )
    if isinstance(source, GhesV2):
        _read_ack(report, name, source)


def _read_ack(report: Report, name: str, source: GhesV2) -> None:
    register = source.read_ack
    if not register.address:
        report.error(f"{name}.read_ack.address", "it is 0: there is no register to acknowledge an error with")
        return
    gas.check(report, f"{name}.read_ack", register, plain_only=True)
    if source.read_ack_write == 0:
        bits = (1 << min(register.bit_width or 64, 64)) - 1
        if source.read_ack_preserve & bits == bits:
            report.error(
                f"{name}.read_ack_write",
                "it is 0, and all bits are preserved: the register never changes, so no error is ever acknowledged",
            )
        else:
            report.warning(
                f"{name}.read_ack_write",
                "it is 0: Linux acknowledges by clearing the bits that are not preserved "
                f"({bits & ~source.read_ack_preserve:#x}), which the firmware must expect",
            )
    elif 0 < register.bit_width < 64 and source.read_ack_write >> register.bit_width:
        report.error(
            f"{name}.read_ack_write",
            f"{source.read_ack_write:#x} is more than the register's {register.bit_width} bits",
        )
    if both := source.read_ack_write & source.read_ack_preserve:
        report.warning(f"{name}.read_ack_preserve", f"bits are both preserved and written: {both:#x}")


def _notification(report: Report, name: str, notification: Notification) -> None:
    if notification.length != Notification.size_of():
        report.error(f"{name}.length", f"it is {notification.length}: the structure has {Notification.size_of()} bytes")
    if notification.type not in set(NotificationType):
        report.error(f"{name}.type", f"notification type {notification.type} is reserved")
    report.reserved(f"{name}.config_write_enable", notification.config_write_enable, 0xFFC0)
    if notification.type == NotificationType.SDEI and notification.vector == 0:
        report.error(
            f"{name}.vector", "SDEI event 0 is the software-signalled one: no error source can use it (Linux refuses)"
        )
