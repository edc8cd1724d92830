"""All that EL2 of one guest is: what lies in memory for it, and what each CPU has in its registers."""

from __future__ import annotations

from dataclasses import dataclass

from qemu_sdei.hypervisor import registers, stage2, vectors
from qemu_sdei.hypervisor.stage2 import Flash
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.ops import MicroOp


@dataclass(frozen=True, slots=True)
class El2:
    """EL2 of one guest.

    Attributes:
        ram_base: physical address of its RAM.
        window_base: physical address of its frame window, where the RAM that it may use ends.
        stage2: whether there is a stage 2, which keeps its CPUs from what lies behind.
        flash: the firmware that it finds at address 0; None: it has none. Only with a stage 2.
    """

    ram_base: int
    window_base: int
    stage2: bool = True
    flash: Flash | None = None

    def at_reset(self) -> tuple[MicroOp, ...]:
        """What each CPU is given as it comes out of reset."""
        at = vectors.address(self.window_base)
        return (
            registers.at_reset(at, stage2.root(self.window_base), stage2.VTCR)
            if self.stage2
            else registers.at_reset(at)
        )

    def memory(self) -> dict[int, bytes]:
        """What must lie in memory before a CPU leaves EL3: physical address → bytes."""
        found = {vectors.address(self.window_base): vectors.image()}
        if self.stage2:
            found[stage2.root(self.window_base)] = stage2.tables(self.ram_base, self.window_base, self.flash)
            found[stage2.pages(self.window_base)] = stage2.page_table(self.window_base)
        if self.flash is not None:
            found[self.window_base + layout.EL2_OFFSET + stage2.DEVICE_STATE] = bytes(stage2.DEVICE_STATE_SIZE)
        return found
