"""An SPI of the guest's that is made pending: which can be, and what is looked at first. Pure: makes micro-operations.

It stays the guest's: Non-secure Group 1, with the priority, trigger and target that the guest gave it. Only its pending
state is set (GICD_ISPENDR; IHI0069 12.9.25), as a device would by its line. The guest ends it as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qemu_sdei.backend.firmware.gic import GICD, LAST_SPI, UART_INTID
from qemu_sdei.monitor.ops import MicroOp, OpResult, read_phys, write_phys
from qemu_sdei.sdei.interrupts import FIRST_SPI

_CTLR_GROUP1NS: Final = 2
_IGROUPR: Final = 0x80
_ISENABLER: Final = 0x100
_ISPENDR: Final = 0x200
_DEVICES: Final = (
    (33, 33, "the UART"),
    (34, 34, "the real-time clock"),
    (35, 38, "PCI Express"),
    (39, 39, "the GPIO controller"),
    (UART_INTID, UART_INTID, "the firmware's own doorbell"),
    (41, 41, "the generic event device"),
    (48, 79, "virtio-mmio"),
    (106, 109, "the SMMU"),
    (144, 207, "the platform bus"),
)
"""First and last INTID of what QEMU's `virt` machine has there (`a15irqmap` in hw/arm/virt.c)."""
FREE: Final = "42 to 47, 80 to 105, 110 to 143 and 208 to 287"
"""What is left, for messages."""


def taken_by(intid: int) -> str | None:
    """Why an interrupt cannot be the one that the firmware makes pending; None: it can."""
    if not FIRST_SPI <= intid <= LAST_SPI:
        return f"interrupt {intid} is not an SPI of this machine: take one of {FREE}"
    for first, last, device in _DEVICES:
        if first <= intid <= last:
            return f"interrupt {intid} is that of {device}: take one of {FREE}"
    return None


def look(intid: int) -> list[MicroOp]:
    """What `obstacle` wants to know."""
    word = intid // 32 * 4
    return [read_phys(GICD, 4), read_phys(GICD + _IGROUPR + word, 4), read_phys(GICD + _ISENABLER + word, 4)]


def obstacle(intid: int, found: Sequence[OpResult]) -> str | None:
    """What stands between the interrupt and the guest, as `look` found it; None: nothing."""
    control, groups, enabled = found
    if not groups.value >> intid % 32 & 1:
        return f"interrupt {intid} is bound to an SDEI event: the guest does not get it"
    if not enabled.value >> intid % 32 & 1:
        return f"the guest has not enabled interrupt {intid}: no driver of its own listens"
    if not control.value & _CTLR_GROUP1NS:
        return "the guest has not enabled its interrupts at the distributor"
    return None


def make_pending(intid: int) -> list[MicroOp]:
    """The interrupt becomes pending."""
    return [write_phys(GICD + _ISPENDR + intid // 32 * 4, 1 << intid % 32, 4)]
