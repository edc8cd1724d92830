"""SDEI: that the firmware has the Software Delegated Exception Interface (DEN0054 appendix C).

A header and nothing else. Which instruction reaches it is in the FADT's ARM_BOOT_ARCH.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from acpi.table import Table


@dataclass(frozen=True, kw_only=True)
class Sdei(Table):
    """The SDEI table: 36 bytes, revision 1."""

    SIGNATURE: ClassVar[str] = "SDEI"
