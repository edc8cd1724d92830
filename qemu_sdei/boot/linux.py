"""Device-tree boot of a Linux kernel, all of it at the RESET frame."""

from __future__ import annotations

from functools import lru_cache

from qemu_sdei.boot.config import BootConfig, Entry
from qemu_sdei.boot.image import KernelImage, read_file
from qemu_sdei.boot.placement import BLOCK, plan
from qemu_sdei.boot.tree import check_ram, firmware_tree

# Read once in the life of the process: what a guest boots does not change under it at a reset.
_kernel = lru_cache(maxsize=2)(KernelImage.load)


@lru_cache(maxsize=2)
def _initrd(path: str) -> bytes:
    return read_file(path, "initrd")


def check(config: BootConfig) -> None:
    """Find what is wrong with kernel, initrd and memory before a guest is started; keeps what it has read for `load`.

    Raises:
        UsageError: see `load`.
    """
    initrd = _initrd(config.initrd) if config.initrd else b""
    plan(_kernel(config.kernel), len(initrd), BLOCK, config.ram_base, config.usable_size)


def code_range(config: BootConfig) -> tuple[int, int]:
    """Physical address and size in bytes of what `load` writes that the guest will execute."""
    kernel = _kernel(config.kernel)
    initrd = _initrd(config.initrd) if config.initrd else b""
    place = plan(kernel, len(initrd), BLOCK, config.ram_base, config.usable_size)
    return place.kernel_address, len(kernel.data)


def load(ram: memoryview, config: BootConfig) -> Entry:
    """Write kernel, initrd and device tree into `ram`, and say where the boot CPU starts.

    Doing it again before the guest runs gives the same result: what is read is not overwritten.

    Args:
        ram: all of guest RAM, a writable memoryview of format "B"; index 0 is `config.ram_base`.
        config: what to boot.

    Raises:
        UsageError: kernel or initrd cannot be read or are no such thing, or memory is too small.
        GuestError: QEMU's device tree is not at the start of RAM, or not this machine's.
    """
    check_ram(ram, config)
    kernel = _kernel(config.kernel)
    initrd = _initrd(config.initrd) if config.initrd else b""
    place = plan(kernel, len(initrd), BLOCK, config.ram_base, config.usable_size)
    initrd_range = (place.initrd_address, place.initrd_address + len(initrd)) if initrd else None
    tree = firmware_tree(ram, config, initrd_range)
    addresses = (place.kernel_address, place.initrd_address, place.dtb_address)
    for address, data in zip(addresses, (kernel.data, initrd, tree), strict=True):
        start = address - config.ram_base
        ram[start : start + len(data)] = data
    return Entry(pc=place.kernel_address, x0=place.dtb_address, x1=0)
