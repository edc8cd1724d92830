"""Where in guest RAM ACPI's things are: a block of fixed size just below the window, made of

- the *tables*: RSDP, QEMU's and our tables, EFI structures. The kernel maps them as ACPI wants (type
  EfiACPIReclaimMemory) and never gives them away;
- the *status* area: for each error source of the HEST an 8-byte word that holds the block's address, a read-ack
  register, and a generic error status block. Reserved: not the kernel's, which maps it by itself.

A device tree boot has no such block. Everything is computed from RAM's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qemu_sdei.boot.config import ACPI_SIZE, BootConfig
from qemu_sdei.errors import UsageError
from qemu_sdei.sdei.profile import Profile

_STATUS_OFFSET: Final = 0x10_0000
_SOURCE_SIZE: Final = 0x2000
BLOCK_SIZE: Final = 0x1000
"""Bytes of a generic error status block: what a CPER record and its sections may have together."""
MAX_SOURCES: Final = (ACPI_SIZE - _STATUS_OFFSET) // _SOURCE_SIZE


@dataclass(frozen=True, slots=True)
class Announced:
    """What our tables announce beside SDEI itself."""

    sources: tuple[int, ...] = ()
    """Events that signal hardware errors, one for each error source."""
    agdi: int | None = None
    """The event that asks for a diagnostic dump."""

    @classmethod
    def of(cls, profile: Profile) -> Announced:
        """What a machine description's events are for."""
        return cls(profile.for_acpi("ghes"), next(iter(profile.for_acpi("agdi")), None))


@dataclass(frozen=True, slots=True)
class ErrorSource:
    """The memory of one generic hardware error source (ACPI 6.5 18.3.2.8): physical addresses."""

    event: int
    """The SDEI event that says that there is something to read."""
    id: int
    """Source id in the HEST."""
    address_register: int
    """8 bytes that hold the address of the status block."""
    read_ack: int
    """8 bytes; the operating system sets bit 0 when it has read the block."""
    block: int
    block_size: int = BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class AcpiArea:
    """The block below the window: physical addresses, sizes in bytes."""

    base: int

    @classmethod
    def of(cls, config: BootConfig) -> AcpiArea:
        """That of a guest. Raises UsageError: it boots by device tree and has none."""
        if config.tables != "acpi":
            raise UsageError("this guest boots by device tree: it has no ACPI tables and no error sources; use --acpi")
        return cls(config.ram_base + config.usable_size)

    @property
    def tables(self) -> tuple[int, int]:
        """Address and size of the tables."""
        return self.base, _STATUS_OFFSET

    @property
    def status(self) -> tuple[int, int]:
        """Address and size of the status area."""
        return self.base + _STATUS_OFFSET, ACPI_SIZE - _STATUS_OFFSET

    def sources(self, events: tuple[int, ...]) -> tuple[ErrorSource, ...]:
        """The error sources that are signalled by these events, in this order.

        Raises:
            UsageError: they are too many, or event 0 is among them, which no HEST can name.
        """
        if len(events) > MAX_SOURCES:
            raise UsageError(f"{len(events)} error sources: {MAX_SOURCES} are possible")
        if 0 in events:
            raise UsageError("event 0 cannot signal hardware errors: Linux refuses it in a HEST")
        start = self.status[0]
        return tuple(
            ErrorSource(event, n, at, at + 8, at + BLOCK_SIZE)
            for n, event in enumerate(events)
            for at in (start + n * _SOURCE_SIZE,)
        )
