"""QEMU's device tree, read from RAM and made ours."""

from __future__ import annotations

from qemu_sdei.boot.config import BootConfig
from qemu_sdei.errors import GuestError


def check_ram(ram: memoryview, config: BootConfig) -> None:
    """Raise ValueError unless `ram` is all of the RAM that `config` describes, in bytes, writable."""
    if ram.format != "B" or ram.ndim != 1 or ram.readonly:
        raise ValueError("guest RAM must be a writable memoryview of bytes")
    if len(ram) < config.ram_size:
        raise ValueError(f"guest RAM has {len(ram):#x} bytes, not {config.ram_size:#x}")


def firmware_tree(ram: memoryview, config: BootConfig, initrd: tuple[int, int] | None = None) -> bytes:
    """The device tree for the guest, made from the one that QEMU put at the start of RAM.

    Args:
        ram: all of guest RAM.
        config: command line, conduit, memory and CPUs to describe.
        initrd: (start, end) physical addresses.

    Raises:
        GuestError: QEMU's tree is not there, or does not fit the configuration.
    """
    # Imported here: a process that boots nothing needs no device tree.
    from qemu_sdei.acpi import DtError, dt, fdt

    try:
        size = fdt.total_size(ram[:64])
        return dt.patch(
            bytes(ram[:size]),
            nr_cpus=config.nr_cpus,
            conduit=config.conduit,
            memory=(config.ram_base, config.usable_size),
            bootargs=config.append,
            initrd=initrd,
            sdei=config.sdei,
        )
    except DtError as error:
        raise GuestError(f"the device tree that QEMU should have put at {config.ram_base:#x}: {error}") from error
