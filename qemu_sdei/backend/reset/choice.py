"""Which loader a configuration wants."""

from __future__ import annotations

from qemu_sdei.backend.reset.el2_loader import El2Loader
from qemu_sdei.backend.reset.loader import Loader
from qemu_sdei.boot.area import Announced
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.hypervisor.el2 import El2
from qemu_sdei.monitor.window import Window


def loader_for(config: BootConfig, window: Window, announced: Announced, el2: El2 | None = None) -> Loader | El2Loader:
    """The loader for a configuration. `announced`: what ACPI tables are to say, where there are any. `el2`: what is to
    be at EL2 below the guest.

    Raises:
        UsageError: what the configuration names cannot be booted.
    """
    loader = _loader_for(config, window, announced)
    return loader if el2 is None else El2Loader(loader, window, el2)


def _loader_for(config: BootConfig, window: Window, announced: Announced) -> Loader:
    if config.tables == "acpi":
        # Imported here: a guest waits for this process, and most do not need 50 ms of tables.
        from qemu_sdei.backend.reset.acpi_loader import AcpiLoader

        return AcpiLoader(config, window, announced)
    return Loader(config, window)
