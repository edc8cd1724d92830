"""What fills guest RAM at a reset: the boot flow, and what QEMU must do before its memory changes behind its back.

TCG keeps what it has translated. It notices when a guest, or QEMU itself, writes over code; it does not notice this
process doing so. After a reset the same kernel lies at the same place, but the kernel that ran before had patched
itself (alternatives, static keys): stale translations of the patched code would run on. So before a second boot QEMU
clears the memory that is going to be loaded.
"""

from __future__ import annotations

from qemu_sdei.backend.reset.fw_cfg_dma import FwCfg, Transfer, clearing
from qemu_sdei.boot import flat, linux
from qemu_sdei.boot.config import BootConfig, Entry
from qemu_sdei.monitor.ops import MicroOp
from qemu_sdei.monitor.window import Window

START = 0
"""The step of a boot that comes first (see `FwCfg.operations`)."""


class Loader:
    """Loads what a guest boots. Files are read when it is made, while QEMU starts, and kept."""

    def __init__(self, config: BootConfig, window: Window) -> None:
        """Raises UsageError: what the configuration names cannot be booted."""
        self._config = config
        self._window = window
        self._fw_cfg = FwCfg(window)
        (flat.check if config.kind == "flat" else linux.check)(config)

    def begin(self, again: bool) -> list[MicroOp]:
        """What QEMU must do before RAM is filled; nothing: it can be filled now.

        `again`: a guest has run from that RAM before.
        """
        return self._fw_cfg.operations(START, self._first(again))

    def _first(self, again: bool) -> list[Transfer]:
        if not again:
            return []
        code_range = flat.code_range if self._config.kind == "flat" else linux.code_range
        return [clearing(*code_range(self._config))]

    def proceed(self, frame: memoryview) -> list[MicroOp]:
        """What comes after the micro-operations that `frame` (of kind OPS) brings back; nothing: RAM can be filled now.

        Raises:
            GuestError: what QEMU has given is damaged.
        """
        return []

    def load(self, epoch: int) -> Entry:
        """Fill guest RAM, for this boot of the machine, the first being 1. Returns where CPU 0 starts."""
        load = flat.load if self._config.kind == "flat" else linux.load
        return load(self._window.ram, self._config)
