"""An access that stage 2 does not let through, as the registers of EL2 tell of it: what a device would see of it.

Syndrome: Arm ARM D17.2.37, "ISS encoding for an exception from a Data Abort".
"""

from __future__ import annotations

from typing import Final, NamedTuple

_EC: Final = 26
_FROM_LOWER: Final = 0x24
"""Exception class: a data abort from a lower level."""
_ISV: Final = 1 << 24
_SAS: Final = 22
_SSE: Final = 1 << 21
_SRT: Final = 16
_SF: Final = 1 << 15
_FNV: Final = 1 << 10
_S1PTW: Final = 1 << 7
_WNR: Final = 1 << 6
_PAGE: Final = 0xFFF
ZERO_REGISTER: Final = 31


class Access(NamedTuple):
    """A load or store of one general-purpose register."""

    address: int
    """As the guest takes it for physical."""
    size: int
    """Bytes: 1, 2, 4 or 8."""
    write: bool
    register: int
    """0 to 30; 31: none, it is zero."""
    signed: bool
    """A load that extends the sign."""
    wide: bool
    """The register has 64 bits, not 32."""

    def loaded(self, value: int) -> int:
        """What the register holds when `value` was loaded."""
        bits = 64 if self.wide else 32
        if self.signed and value >> 8 * self.size - 1 & 1:
            value |= -1 << 8 * self.size
        return value & (1 << bits) - 1

    def stored(self, register: int) -> int:
        """What is stored of a register that holds `register`."""
        return register & (1 << 8 * self.size) - 1


def address_of(far: int, hpfar: int) -> int:
    """The address of an abort by stage 2, from FAR_EL2 and HPFAR_EL2 (D17.2.64)."""
    return (hpfar >> 4 & 0xFF_FFFF_FFFF) << 12 | far & _PAGE


def of(syndrome: int, far: int, hpfar: int) -> Access | None:
    """The access that ended in a data abort of `syndrome` (ESR_EL2). None: it is none of one register (a pair, a
    vector, a walk of the guest's own tables, a fetch), or its address is not known.
    """
    if syndrome >> _EC != _FROM_LOWER or not syndrome & _ISV or syndrome & (_S1PTW | _FNV):
        return None
    return Access(
        address_of(far, hpfar),
        1 << (syndrome >> _SAS & 3),
        bool(syndrome & _WNR),
        syndrome >> _SRT & 31,
        bool(syndrome & _SSE),
        bool(syndrome & _SF),
    )
