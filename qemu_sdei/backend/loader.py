"""What fills guest RAM at a reset: the boot flow, and what QEMU must be told before its memory changes behind its
back.

TCG keeps what it has translated. It notices when a guest, or QEMU itself, writes over code; it does not notice this
process doing so. After a reset the same kernel lies at the same place, but the kernel that ran before had patched
itself (alternatives, static keys): stale translations of the patched code would run on. So before a second boot QEMU
clears the memory that is going to be loaded: a fw_cfg DMA "read" of an item that does not exist writes zeroes there.
"""

from __future__ import annotations

import struct
from typing import Final

from qemu_sdei.boot import flat, linux
from qemu_sdei.boot.config import BootConfig, Entry
from qemu_sdei.monitor.layout import SCRATCH_OFFSET
from qemu_sdei.monitor.ops import MicroOp, write_phys
from qemu_sdei.monitor.window import Window

_DMA_REGISTER: Final = 0x0902_0010
"""fw_cfg of the `virt` machine: 64-bit, big-endian; writing it starts the transfer, which is done when the write is."""
_NO_ITEM: Final = 0x3FFF
_SELECT: Final = 8
_READ: Final = 2
_ACCESS: Final = struct.Struct(">IIQ")
"""FWCfgDmaAccess: control, length, address."""


class Loader:
    """Loads what a guest boots. Files are read when it is made, while QEMU starts, and kept."""

    def __init__(self, config: BootConfig, window: Window) -> None:
        """Raises UsageError: what the configuration names cannot be booted."""
        self._config = config
        self._window = window
        (flat.check if config.kind == "flat" else linux.check)(config)

    def clear(self) -> list[MicroOp]:
        """Have QEMU clear the memory that `load` will put code into."""
        code_range = flat.code_range if self._config.kind == "flat" else linux.code_range
        address, size = code_range(self._config)
        window = self._window
        at = window.base - window.ram_base + SCRATCH_OFFSET
        _ACCESS.pack_into(window.ram, at, _NO_ITEM << 16 | _SELECT | _READ, size, address)
        descriptor = (window.base + SCRATCH_OFFSET).to_bytes(8, "big")
        return [write_phys(_DMA_REGISTER, int.from_bytes(descriptor, "little"))]

    def load(self) -> Entry:
        """Fill guest RAM. Returns where CPU 0 starts."""
        load = flat.load if self._config.kind == "flat" else linux.load
        return load(self._window.ram, self._config)
