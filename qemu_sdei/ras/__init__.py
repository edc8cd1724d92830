"""Error records: Common Platform Error Records (UEFI 2.10 appendix N) and generic error status blocks (ACPI 6.5
18.3.2.7.1), made, read, printed, checked, and as JSON.

`from qemu_sdei.ras import Memory`: the kinds of sections are here too. They are looked up when they are first used, so
that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qemu_sdei.ras.kinds import (
        Arm,
        ArmRas,
        CxlDram,
        CxlGeneralMedia,
        CxlMemoryModule,
        CxlMldPort,
        CxlPhysicalSwitch,
        CxlProtocol,
        CxlVirtualSwitch,
        Firmware,
        Memory,
        Memory2,
        Pcie,
        Processor,
    )

__all__ = [
    "Arm",
    "ArmRas",
    "CxlDram",
    "CxlGeneralMedia",
    "CxlMemoryModule",
    "CxlMldPort",
    "CxlPhysicalSwitch",
    "CxlProtocol",
    "CxlVirtualSwitch",
    "Firmware",
    "Memory",
    "Memory2",
    "Pcie",
    "Processor",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("qemu_sdei.ras.kinds"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
