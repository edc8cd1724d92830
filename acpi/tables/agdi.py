"""AGDI: how firmware asks for a diagnostic dump and reset (DEN0093 1.2, chapter "AGDI")."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final, Self

from qemu_sdei.acpi.layout import u8, u24, u32
from qemu_sdei.acpi.table import Oem, Table

MODE_MASK: Final = 0x3
"""Bits of `flags` that hold the signalling mode; those above are reserved."""


class SignalingMode(IntEnum):
    """How the request comes (DEN0093: flags, bits [1:0])."""

    SDEI = 0
    INTERRUPT = 1
    SDEI_AND_INTERRUPT = 2
    """Since DEN0093 1.2."""


def _mode(flags: int) -> str:
    words = {
        0: "signalled by an SDEI event",
        1: "signalled by an interrupt",
        2: "signalled by both",
        3: "reserved mode",
    }
    rest = flags & ~MODE_MASK
    return words[flags & MODE_MASK] + (f", reserved bits {rest:#x}" if rest else "")


@dataclass(frozen=True, kw_only=True)
class Agdi(Table):
    """48 bytes: `by_sdei(event)`, `by_interrupt(gsiv)`, `by_both(event, gsiv)` (mode 2)."""

    SIGNATURE: ClassVar[str] = "AGDI"
    REVISIONS: ClassVar[tuple[int, int]] = (0, 1)
    ONCE: ClassVar[bool] = True

    revision: int = 0
    flags: int = u8("Flags", words=_mode)
    reserved: int = u24("Reserved")
    sdei_event: int = u32("SDEI Event")
    """Event number; 0 if the mode has none."""
    gsiv: int = u32("GSIV")
    """Number of the interrupt; 0 if the mode has none."""

    @classmethod
    def by_sdei(cls, event: int, *, oem: Oem | None = None) -> Self:
        """The request comes as SDEI event `event`."""
        return cls(flags=SignalingMode.SDEI, sdei_event=event, oem=oem or Oem())

    @classmethod
    def by_interrupt(cls, gsiv: int, *, oem: Oem | None = None) -> Self:
        """The request comes as interrupt `gsiv`."""
        return cls(flags=SignalingMode.INTERRUPT, gsiv=gsiv, oem=oem or Oem())

    @classmethod
    def by_both(cls, event: int, gsiv: int, *, oem: Oem | None = None) -> Self:
        """The request comes as SDEI event `event` and as interrupt `gsiv` (mode 2, DEN0093 1.2)."""
        return cls(flags=SignalingMode.SDEI_AND_INTERRUPT, sdei_event=event, gsiv=gsiv, oem=oem or Oem())

    @property
    def mode(self) -> int:
        """A `SignalingMode`, or 3, which is reserved."""
        value = self.flags & MODE_MASK
        return SignalingMode(value) if value in set(SignalingMode) else value
