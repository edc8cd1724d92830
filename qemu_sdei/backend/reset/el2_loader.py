"""Before what a guest boots is loaded, what is at EL2 below it: written anew at each reset of the machine."""

from __future__ import annotations

from qemu_sdei.backend.firmware.machine_boot import Boot
from qemu_sdei.boot.config import Entry
from qemu_sdei.hypervisor.el2 import El2
from qemu_sdei.monitor.ops import MicroOp
from qemu_sdei.monitor.window import Window


class El2Loader:
    """Loads EL2, and then what `loader` loads."""

    def __init__(self, loader: Boot, window: Window, el2: El2) -> None:
        self._loader = loader
        self._window = window
        self._el2 = el2

    def begin(self, again: bool) -> list[MicroOp]:
        """See `Boot`."""
        return self._loader.begin(again)

    def proceed(self, frame: memoryview) -> list[MicroOp]:
        """See `Boot`."""
        return self._loader.proceed(frame)

    def load(self, epoch: int) -> Entry:
        """See `Boot`."""
        for address, data in self._el2.memory().items():
            start = address - self._window.ram_base
            self._window.ram[start : start + len(data)] = data
        return self._loader.load(epoch)
