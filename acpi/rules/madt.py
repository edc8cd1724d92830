"""What is read of a MADT (signature APIC), which has no class of its own: its Arm CPUs (ACPI 6.5 5.2.12.14)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from acpi.table import Table

_FIRST: Final = 44
"""Offset of the first structure."""
_GICC: Final = 0x0B
_GICC_MIN: Final = 76
"""Bytes of a GICC in ACPI 5.1; later ones are longer."""


@dataclass(frozen=True, slots=True)
class Processor:
    """A GIC CPU interface structure."""

    usable: bool
    """Enabled, or online capable."""
    parked: bool
    """It has an address of the parking protocol."""
    has_el2: bool
    """It has a VGIC maintenance interrupt, which is for a hypervisor."""


def processors(table: Table) -> Iterator[Processor]:
    """The Arm CPUs of a MADT, as far as its structures can be followed."""
    data = table.to_bytes()
    at = _FIRST
    while at + 2 <= len(data):
        kind, size = data[at], data[at + 1]
        if size < 2 or at + size > len(data):
            return
        if kind == _GICC and size >= _GICC_MIN:
            flags = int.from_bytes(data[at + 12 : at + 16], "little")
            parked, maintenance = data[at + 24 : at + 32], data[at + 56 : at + 60]
            yield Processor(usable=bool(flags & 0b1001), parked=any(parked), has_el2=any(maintenance))
        at += size
