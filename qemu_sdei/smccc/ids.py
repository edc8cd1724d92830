"""Anatomy of a function id, and the return codes (DEN0028, SMC Calling Convention)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

FAST: Final = 1 << 31
"""Fast call: runs to its end. Everything served here is one; an id without this bit is a yielding call."""
SMC64: Final = 1 << 30
SVE_HINT: Final = 1 << 16
"""Not part of the id: says that the caller has no live SVE state (SMCCC 1.3)."""
NUMBER_MASK: Final = 0xFFFF

FUNCTION_MASK: Final = 0xFFFF_FFFF & ~SVE_HINT
"""The id is W0 without the SVE hint: what the registry's table is indexed by."""


class Owner(IntEnum):
    """Bits 29:24: whose function it is."""

    ARCH = 0
    CPU = 1
    SIP = 2
    OEM = 3
    STANDARD = 4
    """Standard secure services: PSCI, SDEI, TRNG."""
    STANDARD_HYP = 5
    VENDOR_HYP = 6


LAST_OWNER: Final = 63

SUCCESS: Final = 0
NOT_SUPPORTED: Final = -1
NOT_REQUIRED: Final = -2
INVALID_PARAMETER: Final = -3


def function_id(owner: int, number: int, width: int = 64) -> int:
    """The id of a fast call: `number` (0..0xffff) of `owner` (0..63) with 32 or 64 bit arguments."""
    return FAST | (SMC64 if width == 64 else 0) | owner << 24 | number


def owner_of(function: int) -> int:
    """Bits 29:24."""
    return function >> 24 & 0x3F


def number_of(function: int) -> int:
    """Bits 15:0."""
    return function & NUMBER_MASK


def width_of(function: int) -> int:
    """Width of the arguments in bits: 32 or 64."""
    return 64 if function & SMC64 else 32
