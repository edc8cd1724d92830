"""Where kernel, initrd and device tree go in guest RAM: arithmetic only.

The rules are Documentation/arch/arm64/booting.rst's:

- the kernel at `text_offset` above a 2 MiB boundary, with `image_size` bytes free from there;
- the device tree on 8 bytes, at most 2 MiB, not across a 2 MiB boundary (needed before 4.2);
- the initrd within the 32 GiB that start at the 1 GiB boundary below the kernel.

QEMU puts its own device tree at the start of RAM, at every reset. The first 2 MiB are left alone, so that loading can
be done again after a crash of the backend half-way: what is read stays what it was until the guest runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qemu_sdei.boot.image import KernelImage
from qemu_sdei.errors import UsageError

MIB: Final = 1 << 20
BLOCK: Final = 2 * MIB
PAGE: Final = 0x1_0000
"""64 KiB: the largest page that an arm64 kernel is built for."""
HEADROOM: Final = 24 * MIB
"""Bytes that a kernel wants for itself beyond what is loaded: page array, per-CPU areas, first processes. Debian's 6.1
and 6.12 need 20 to 24 MiB (2 CPUs); with less they panic, or die before they can say so. Here it is one clear line."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Physical addresses of what is loaded; `end` is the first byte behind all of it."""

    kernel_address: int
    initrd_address: int
    """Meaningful only with an initrd."""
    dtb_address: int
    end: int


def align_up(value: int, alignment: int) -> int:
    """`value` rounded up to a multiple of `alignment`, a power of two."""
    return (value + alignment - 1) & -alignment


def plan(kernel: KernelImage, initrd_size: int, dtb_size: int, ram_base: int, ram_usable_size: int) -> Placement:
    """Find places for a kernel, an initrd of `initrd_size` and a device tree of at most `dtb_size` bytes.

    `ram_usable_size` is what the guest is told of, in bytes. The initrd's place does not depend on `dtb_size`.

    Raises:
        UsageError: the guest has too little memory; the message says how much is needed.
    """
    kernel_address = align_up(ram_base + BLOCK, BLOCK) + kernel.text_offset
    initrd_address = align_up(kernel_address + kernel.image_size, PAGE)
    dtb_address = align_up(initrd_address + initrd_size, BLOCK)
    end = dtb_address + dtb_size
    # An initrd is unpacked into memory of its own; how well it was compressed is not known here.
    need = end - ram_base + HEADROOM + initrd_size
    if need > ram_usable_size:
        raise too_small(f"kernel and initrd need {_mib(need)} MiB of memory", need, ram_usable_size)
    return Placement(kernel_address, initrd_address, dtb_address, end)


def too_small(what: str, need: int, usable: int) -> UsageError:
    """The error for `need` bytes that do not fit into `usable` bytes."""
    # 2 MiB are hidden from the guest; the rest makes the figure a round one.
    memory = align_up(need + BLOCK, 32 * MIB) // MIB
    return UsageError(f"{what}, the guest has {usable // MIB} MiB: use --memory {memory}")


def _mib(size: int) -> int:
    return align_up(size, MIB) // MIB
