"""Which loader a configuration wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_sdei.backend.reset.loader import Loader
from qemu_sdei.boot.area import Announced
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.monitor.window import Window

if TYPE_CHECKING:
    from qemu_sdei.backend.reset.uefi_loader import UefiLoader


def loader_for(config: BootConfig, window: Window, announced: Announced) -> Loader | UefiLoader:
    """The loader for a configuration. `announced`: what ACPI tables are to say, where there are any.

    Raises:
        UsageError: what the configuration names cannot be booted.
    """
    # Imported here: a guest waits for this process, and most do not need 50 ms of tables.
    if config.uefi is not None:
        from qemu_sdei.backend.reset.uefi_loader import UefiLoader

        return UefiLoader(config, window, announced)
    if config.tables == "acpi":
        from qemu_sdei.backend.reset.acpi_loader import AcpiLoader

        return AcpiLoader(config, window, announced)
    return Loader(config, window)
