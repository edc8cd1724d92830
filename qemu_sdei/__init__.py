"""Firmware services for Arm guests, hosted in Python, on stock QEMU.

The library's front door: `from qemu_sdei import Guest, GuestOptions`. Names are looked up when they are first used, so
that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qemu_sdei.machine.client import ControlClient, Injection
    from qemu_sdei.machine.endings import PowerOff
    from qemu_sdei.machine.guest import Guest
    from qemu_sdei.machine.kernel_words import Panic
    from qemu_sdei.machine.options import GuestOptions
    from qemu_sdei.machine.shell import CommandResult
    from qemu_sdei.migration.options import Hold, MigrationResult

__version__ = "0.1.0"

_HOMES = {
    "CommandResult": "qemu_sdei.machine.shell",
    "ControlClient": "qemu_sdei.machine.client",
    "Guest": "qemu_sdei.machine.guest",
    "GuestOptions": "qemu_sdei.machine.options",
    "Hold": "qemu_sdei.migration.options",
    "Injection": "qemu_sdei.machine.client",
    "MigrationResult": "qemu_sdei.migration.options",
    "Panic": "qemu_sdei.machine.kernel_words",
    "PowerOff": "qemu_sdei.machine.endings",
}

__all__ = [
    "CommandResult",
    "ControlClient",
    "Guest",
    "GuestOptions",
    "Hold",
    "Injection",
    "MigrationResult",
    "Panic",
    "PowerOff",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
