"""BERT: where firmware left the errors of the boot before (ACPI 6.5 18.3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qemu_sdei.acpi.layout import u32, u64
from qemu_sdei.acpi.table import Table


@dataclass(frozen=True, kw_only=True)
class Bert(Table):
    """48 bytes, revision 1: where the error region is."""

    SIGNATURE: ClassVar[str] = "BERT"
    REVISIONS: ClassVar[tuple[int, int]] = (1, 1)
    ONCE: ClassVar[bool] = True

    region_length: int = u32("Boot Error Region Length")
    """Bytes; an error status block fits in."""
    region_address: int = u64("Boot Error Region")
    """Physical address of a Generic Error Status Block."""
