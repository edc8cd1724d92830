"""Boot of a Linux kernel by device tree, all of it at the RESET frame; and what an ACPI boot has in common with it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from qemu_sdei.boot.config import BootConfig, Entry
from qemu_sdei.boot.image import KernelImage, read_file
from qemu_sdei.boot.load_addresses import BLOCK, Placement, plan
from qemu_sdei.boot.tree import check_ram, firmware_tree

# Read once in the life of the process: what a guest boots does not change under it at a reset.
_kernel = lru_cache(maxsize=2)(KernelImage.load)


@lru_cache(maxsize=2)
def _initrd(path: str) -> bytes:
    return read_file(path, "initrd")


class Pieces(NamedTuple):
    """What is loaded, and where."""

    kernel: KernelImage
    initrd: bytes
    place: Placement

    @property
    def initrd_range(self) -> tuple[int, int] | None:
        """(start, end) physical addresses of the initrd; None without one."""
        start = self.place.initrd_address
        return (start, start + len(self.initrd)) if self.initrd else None

    def write(self, ram: memoryview, config: BootConfig, tree: bytes) -> Entry:
        """Write kernel, initrd and device tree into `ram`, and say where the boot CPU starts."""
        place = self.place
        addresses = (place.kernel_address, place.initrd_address, place.dtb_address)
        for address, data in zip(addresses, (self.kernel.data, self.initrd, tree), strict=True):
            start = address - config.ram_base
            ram[start : start + len(data)] = data
        return Entry(pc=place.kernel_address, x0=place.dtb_address, x1=0)


def pieces(config: BootConfig) -> Pieces:
    """Kernel and initrd with their places; kept for the next time.

    Raises:
        UsageError: kernel or initrd cannot be read or are no such thing, or memory is too small.
    """
    kernel = _kernel(config.kernel)
    initrd = _initrd(config.initrd) if config.initrd else b""
    return Pieces(kernel, initrd, plan(kernel, len(initrd), BLOCK, config.ram_base, config.usable_size))


def check(config: BootConfig) -> None:
    """Find what is wrong with kernel, initrd and memory before a guest is started; keeps what it has read for `load`.

    Raises:
        UsageError: see `load`.
    """
    pieces(config)


def page_size(config: BootConfig) -> int | None:
    """Bytes of a page of the kernel that is booted; None: it does not say. Raises `UsageError` as `load`."""
    return _kernel(config.kernel).page_size


def code_range(config: BootConfig) -> tuple[int, int]:
    """Physical address and size in bytes of what `load` writes that the guest will execute."""
    kernel, _, place = pieces(config)
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
    parts = pieces(config)
    return parts.write(ram, config, firmware_tree(ram, config, parts.initrd_range))
