"""A crashed kernel's memory by the addresses that the kernel itself uses: its image, and its linear map of RAM.

arch/arm64/include/asm/memory.h: `__virt_to_phys_nodebug`, `_PAGE_OFFSET`, `_PAGE_END`.
"""

from __future__ import annotations

import struct
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.vmcore.core_file import Core
from qemu_sdei.vmcore.vmcoreinfo import VmcoreInfo

_MASK: Final = (1 << 64) - 1
_LEAST: Final = 48
"""VA_BITS_MIN of a kernel built for 52 bits: it must start on CPUs that have 48."""


class KernelMemory:
    """Reads it. Raises `UsageError`: the kernel does not say how."""

    def __init__(self, core: Core, info: VmcoreInfo) -> None:
        self._core = core
        bits = info.number("VA_BITS")
        if not 36 <= bits <= 52:
            raise UsageError(f"the dump's VMCOREINFO is damaged: addresses of {bits} bits")
        self._linear = range((1 << 64) - (1 << bits), (1 << 64) - (1 << min(bits, _LEAST) - 1))
        self._offset = info.number("PHYS_OFFSET")
        self._image = info.number("kimage_voffset")

    def physical(self, address: int) -> int:
        """The physical address of a kernel's address in its image or its linear map."""
        if address in self._linear:
            return (address - self._linear.start + self._offset) & _MASK
        return (address - self._image) & _MASK

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes. Raises `UsageError`: the dump has them not."""
        return self._core.read(self.physical(address), size)

    def word(self, address: int) -> int:
        """A 64-bit number. Raises as `read`."""
        found: tuple[int] = struct.unpack("<Q", self.read(address, 8))
        return found[0]
