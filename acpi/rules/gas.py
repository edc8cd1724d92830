"""Rules for registers (ACPI 6.5 5.2.3.2)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.tables.gas import AddressSpace, Gas

_PLAIN: Final = (AddressSpace.SYSTEM_MEMORY, AddressSpace.SYSTEM_IO)
_OEM: Final = 0xC0
"""Address spaces from here on are the OEM's."""


def check(report: Report, name: str, gas: Gas, *, plain_only: bool = False) -> None:
    """Check the register `gas`, which is the field `name`, and not left out.

    Args:
        report: takes the findings.
        name: path of the field.
        gas: what stands there.
        plain_only: only system memory and I/O ports will do, as in HEST (ACPI 6.5 18.3.2.7).
    """
    if gas.space not in set(AddressSpace) and gas.space < _OEM:
        report.error(f"{name}.space", f"address space {gas.space:#x} is reserved")
        return
    if plain_only and gas.space not in _PLAIN:
        report.error(f"{name}.space", "the register must be in system memory or at an I/O port")
        return
    if gas.access_size > 4:
        report.error(f"{name}.access_size", f"access size {gas.access_size} is reserved: 0 to 4 can be")
        return
    if gas.space not in _PLAIN:
        return
    if gas.bit_width == 0:
        report.error(f"{name}.bit_width", "the register is 0 bits wide")
    elif gas.bit_width > 64 and plain_only:
        report.error(f"{name}.bit_width", f"the register is {gas.bit_width} bits wide: 64 at most can be")
    elif gas.access_size and plain_only:
        access = 4 << gas.access_size
        if gas.bit_width + gas.bit_offset > access:
            report.warning(
                f"{name}.access_size",
                f"bits up to {gas.bit_width + gas.bit_offset} do not fit into one access of {access} bits: "
                "Linux refuses such a register",
            )
        elif gas.address % (access // 8):
            report.warning(f"{name}.address", f"{gas.address:#x} is not aligned for accesses of {access} bits")
    if gas.space == AddressSpace.SYSTEM_IO and gas.address > 0xFFFF:
        report.error(f"{name}.address", f"{gas.address:#x} is no I/O port")
