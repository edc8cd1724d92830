"""What is in RAM when the first instruction of the guest runs."""

from __future__ import annotations

from qemu_sdei.boot import flat, linux
from qemu_sdei.boot.config import BootConfig, Entry

__all__ = ["BootConfig", "Entry", "check", "load", "page_size"]


def check(config: BootConfig) -> None:
    """Find what is wrong with files and memory before a guest is started; raises UsageError."""
    if config.kind == "linux":
        linux.check(config)
    elif config.kind == "flat":
        flat.check(config)


def page_size(config: BootConfig) -> int | None:
    """Bytes of a page of the Linux that `config` boots; None: it does not say, or boots none. Raises `UsageError`."""
    return linux.page_size(config) if config.kind == "linux" else None


def load(ram: memoryview, config: BootConfig) -> Entry:
    """Load what `config` describes into `ram`: see `linux.load` and `flat.load`. Not where a UEFI comes first."""
    return linux.load(ram, config) if config.kind == "linux" else flat.load(ram, config)
