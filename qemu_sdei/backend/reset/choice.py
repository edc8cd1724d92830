"""Which loader a configuration wants."""

from __future__ import annotations

from qemu_sdei.backend.reset.loader import Loader
from qemu_sdei.boot.area import Announced
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.monitor.window import Window


def loader_for(config: BootConfig, window: Window, announced: Announced) -> Loader:
    """The loader for a configuration. `announced`: what ACPI tables are to say, where there are any.

    Raises:
        UsageError: what the configuration names cannot be booted.
    """
    if config.tables == "acpi":
        # Imported here: a guest waits for this process, and most do not need 50 ms of tables.
        from qemu_sdei.backend.reset.acpi_loader import AcpiLoader

        return AcpiLoader(config, window, announced)
    return Loader(config, window)
