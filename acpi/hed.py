r"""An SSDT by which an interrupt says that there is an error to be read: notification type 10, "External Interrupt -
GSIV" (ACPI 6.5 18.3.2.9).

The operating system takes such interrupts by a Generic Event Device (5.6.9), whose `_EVT` notifies the Hardware Error
Device (18.1), and then looks at all sources of that type. By type 1, which names an interrupt without a device, Linux
on arm64 cannot: it looks for the interrupt before any device has made it known, and says "Failed to map GSI to IRQ".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from qemu_sdei.acpi import aml
from qemu_sdei.acpi.table import Oem
from qemu_sdei.acpi.tables.raw import RawTable

HED: Final = r"\_SB.QHED"
"""The Hardware Error Device: an operating system takes one of a machine."""
GED: Final = r"\_SB.QGED"
_HED_ID: Final = "PNP0C33"
_GED_ID: Final = "ACPI0013"
_UID: Final = "QSDE"
_ERROR: Final = 0x80
"""Notification value of a Hardware Error Device (5.6.6)."""
_SSDT_REVISION: Final = 2


def hed_table(interrupts: Iterable[int], oem: Oem | None = None) -> RawTable:
    """The table, for these global system interrupt numbers, which are edge-triggered."""
    numbers = sorted(set(interrupts))
    return RawTable.build(
        "SSDT",
        aml.device(HED, aml.named("_HID", aml.eisa_id(_HED_ID)))
        + aml.device(
            GED,
            aml.named("_HID", aml.string(_GED_ID)),
            aml.named("_UID", aml.string(_UID)),
            aml.named("_CRS", aml.interrupts(numbers)),
            aml.method("_EVT", 1, aml.notify(HED, _ERROR), serialized=True),
        ),
        revision=_SSDT_REVISION,
        oem=oem,
    )
