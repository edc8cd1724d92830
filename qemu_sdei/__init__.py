"""Firmware services for Arm guests, hosted in Python, on stock QEMU.

The library's front door: `from qemu_sdei import Guest, GuestOptions`. Names are looked up when they are first used, so
that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qemu_sdei.guest.control_client import ControlClient, Injection
    from qemu_sdei.guest.guest import Guest
    from qemu_sdei.guest.kdump_stages import Kdump
    from qemu_sdei.guest.shell import CommandResult
    from qemu_sdei.guest.status import Status
    from qemu_sdei.migration.options import Hold, MigrationResult
    from qemu_sdei.vm.kernel_messages import Panic
    from qemu_sdei.vm.options import GuestOptions
    from qemu_sdei.vm.qemu_exit import PowerOff

__version__ = "0.2.0.dev0"
"""The one place of the version: `pyproject.toml`, `--version` and documents take it from here."""

_HOMES = {
    "CommandResult": "qemu_sdei.guest.shell",
    "ControlClient": "qemu_sdei.guest.control_client",
    "Guest": "qemu_sdei.guest.guest",
    "GuestOptions": "qemu_sdei.vm.options",
    "Hold": "qemu_sdei.migration.options",
    "Injection": "qemu_sdei.guest.control_client",
    "Kdump": "qemu_sdei.guest.kdump_stages",
    "MigrationResult": "qemu_sdei.migration.options",
    "Panic": "qemu_sdei.vm.kernel_messages",
    "PowerOff": "qemu_sdei.vm.qemu_exit",
    "Status": "qemu_sdei.guest.status",
}

__all__ = [
    "CommandResult",
    "ControlClient",
    "Guest",
    "GuestOptions",
    "Hold",
    "Injection",
    "Kdump",
    "MigrationResult",
    "Panic",
    "PowerOff",
    "Status",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Completion shows what can be had, before it was used too."""
    return sorted({*globals(), *__all__})
