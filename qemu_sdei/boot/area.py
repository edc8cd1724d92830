"""Where in guest RAM ACPI's things are: a block of fixed size just below the window, made of

- the *tables*: RSDP, QEMU's and our tables, EFI structures. The kernel maps them as ACPI wants (type
  EfiACPIReclaimMemory) and never gives them away;
- the *status* area: for each error source of the HEST an 8-byte word that holds the block's address, a read-ack
  register, and a generic error status block; at its end the region of the BERT, and what the next boot's will have.
  Reserved: not the kernel's, which maps it by itself.

A device tree boot has no such block. Everything is computed from RAM's size and the sources' descriptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qemu_sdei.boot.config import ACPI_SIZE, BootConfig
from qemu_sdei.errors import UsageError
from qemu_sdei.ras.source import Source
from qemu_sdei.sdei.machine_description import MachineDescription

_STATUS_OFFSET: Final = 0x10_0000
_PAGE: Final = 0x1000
_BOOT_ERRORS_SIZE: Final = 0x1_0000


@dataclass(frozen=True, slots=True)
class Announced:
    """What our tables announce beside SDEI itself."""

    sources: tuple[Source, ...] = ()
    """The error sources of the HEST, each with an id."""
    agdi: int | None = None
    """The event that asks for a diagnostic dump."""
    agdi_interrupt: int | None = None
    """The interrupt that does, too or alone."""

    @classmethod
    def of(cls, profile: MachineDescription) -> Announced:
        """What a machine description's events and sources are for."""
        return cls(profile.sources, next(iter(profile.for_acpi("agdi")), None), profile.agdi_interrupt)


@dataclass(frozen=True, slots=True)
class ErrorSource:
    """A source with the memory that it has (ACPI 6.5 18.3.2.8): physical addresses."""

    source: Source
    address_register: int
    """8 bytes that hold the address of the status block."""
    read_ack: int | None
    """8 bytes; the operating system sets bit 0 when it has read the block. None: a source without it."""
    block: int

    @property
    def block_size(self) -> int:
        """Bytes of the status block."""
        return self.source.block


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

    @property
    def boot_errors(self) -> tuple[int, int]:
        """Address and size of the region that a BERT names: near the end of the status area."""
        return self.staged_errors[0] - _BOOT_ERRORS_SIZE, _BOOT_ERRORS_SIZE

    @property
    def staged_errors(self) -> tuple[int, int]:
        """Address and size of where errors wait for the next boot's BERT: the end of the status area."""
        start, size = self.status
        return start + size - _BOOT_ERRORS_SIZE, _BOOT_ERRORS_SIZE

    def sources(self, sources: Sequence[Source]) -> tuple[ErrorSource, ...]:
        """Where these error sources are, in this order: a page for the registers of each, then its block.

        Raises:
            UsageError: they do not fit.
        """
        placed = []
        at, end = self.status[0], self.boot_errors[0]
        for source in sources:
            block = at + _PAGE
            placed.append(ErrorSource(source, at, at + 8 if source.acknowledged else None, block))
            at = block + (source.block + _PAGE - 1 & -_PAGE)
        if at > end:
            raise UsageError(
                f"{len(placed)} error sources with these blocks take {at - self.status[0] >> 10} KiB: "
                f"{end - self.status[0] >> 10} are there, so take fewer or smaller ones"
            )
        return tuple(placed)
