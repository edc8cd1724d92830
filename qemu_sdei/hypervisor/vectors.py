"""The exception vectors of EL2: each entry is one SMC, which takes the exception on to the EL3 monitor.

No register is touched on the way, and EL2 has no stack and no memory of its own. What has happened stands in the
registers that the exception has filled (ESR_EL2, ELR_EL2, SPSR_EL2, FAR_EL2, HPFAR_EL2); the monitor saves them into
the frame when it is asked to (`Save.EL2`). The answer goes from EL3 straight to where the guest was: nothing returns to
EL2.
"""

from __future__ import annotations

from typing import Final

from qemu_sdei.hypervisor.instructions import SIZE, STAY, Instruction, code, smc
from qemu_sdei.monitor import layout

ENTRIES: Final = 16
ENTRY_SIZE: Final = 0x80
"""Bytes (Arm ARM D1.3.1.1)."""
ALIGN: Final = 0x800
"""Of VBAR_EL2."""
FIRST_IMMEDIATE: Final = 0x100
"""The immediate of entry n is this plus n: calls of a guest have 0."""
LOWER_SYNC: Final = 8
"""The entry of a synchronous exception from a lower level in AArch64: all that comes here of a guest."""


def entry(number: int) -> tuple[Instruction, ...]:
    """The instructions of entry `number`, 0 to 15: the exception goes to EL3, and nothing comes back."""
    return (smc(FIRST_IMMEDIATE + number), STAY)


def image() -> bytes:
    """All entries as they lie in memory: 2 KiB."""
    padding = (STAY,) * (ENTRY_SIZE // SIZE - len(entry(0)))
    return code(each for number in range(ENTRIES) for each in (*entry(number), *padding))


def address(window_base: int) -> int:
    """Physical address of the vectors, for a frame window at `window_base`."""
    return window_base + layout.EL2_OFFSET
