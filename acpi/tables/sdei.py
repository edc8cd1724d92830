"""SDEI: that the firmware has the Software Delegated Exception Interface (DEN0054 appendix C).

A header and nothing else. Which instruction reaches it is in the FADT's ARM_BOOT_ARCH.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qemu_sdei.acpi.table import Table


@dataclass(frozen=True, kw_only=True)
class Sdei(Table):
    """36 bytes, revision 1: a header and nothing else."""

    SIGNATURE: ClassVar[str] = "SDEI"
    REVISIONS: ClassVar[tuple[int, int]] = (1, 1)
    ONCE: ClassVar[bool] = True
