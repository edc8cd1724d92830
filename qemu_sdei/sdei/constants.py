"""Numbers of the SDEI interface (DEN0054 v1.1)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Function(IntEnum):
    """Function ids: fast SMC64 calls of the standard secure service (owner 4), DEN0054 5.1."""

    VERSION = 0xC400_0020
    EVENT_REGISTER = 0xC400_0021
    EVENT_ENABLE = 0xC400_0022
    EVENT_DISABLE = 0xC400_0023
    EVENT_CONTEXT = 0xC400_0024
    EVENT_COMPLETE = 0xC400_0025
    EVENT_COMPLETE_AND_RESUME = 0xC400_0026
    EVENT_UNREGISTER = 0xC400_0027
    EVENT_STATUS = 0xC400_0028
    EVENT_GET_INFO = 0xC400_0029
    EVENT_ROUTING_SET = 0xC400_002A
    PE_MASK = 0xC400_002B
    PE_UNMASK = 0xC400_002C
    INTERRUPT_BIND = 0xC400_002D
    INTERRUPT_RELEASE = 0xC400_002E
    EVENT_SIGNAL = 0xC400_002F
    FEATURES = 0xC400_0030
    PRIVATE_RESET = 0xC400_0031
    SHARED_RESET = 0xC400_0032


FIRST_NUMBER: Final = 0x20
LAST_NUMBER: Final = 0x3F
"""The function numbers that belong to SDEI; 0x33..0x3F are unassigned and answer NOT_SUPPORTED."""

# Return codes, DEN0054 5.3. Plain ints: they are returned on the hot path.
SUCCESS: Final = 0
NOT_SUPPORTED: Final = -1
INVALID_PARAMETERS: Final = -2
DENIED: Final = -3
PENDING: Final = -5
OUT_OF_RESOURCE: Final = -10

CODE_NAMES: Final = {
    SUCCESS: "SUCCESS",
    NOT_SUPPORTED: "NOT_SUPPORTED",
    INVALID_PARAMETERS: "INVALID_PARAMETERS",
    DENIED: "DENIED",
    PENDING: "PENDING",
    OUT_OF_RESOURCE: "OUT_OF_RESOURCE",
}

# EVENT_REGISTER flags, DEN0054 5.1.2.
FLAG_RM_PE: Final = 1
"""Bit 0: routing mode RM_PE, else RM_ANY. Bit 1 (relative mode) is not offered, bits 63:2 are reserved."""

# Routing modes, DEN0054 5.1.11.
RM_ANY: Final = 0
RM_PE: Final = 1


class Info(IntEnum):
    """What EVENT_GET_INFO is asked for, DEN0054 5.1.10."""

    TYPE = 0
    SIGNALABLE = 1
    """0 means: can be signalled by software (ACS12); the name says the opposite."""
    PRIORITY = 2
    ROUTING_MODE = 3
    ROUTING_AFFINITY = 4


class Feature(IntEnum):
    """What FEATURES is asked for, DEN0054 5.1.17."""

    BIND_SLOTS = 0
    RELATIVE_MODE = 1
    """Since v1.1; a v1.0 dispatcher answers INVALID_PARAMETERS."""


W_MASK: Final = 0xFFFF_FFFF
AFFINITY_MASK: Final = 0xFF_00FF_FFFF
"""Aff3 in 39:32, Aff2..Aff0 in 23:0: what of an MPIDR names a PE."""
EVENT_NUMBER_MAX: Final = 0x7FFF_FFFF
"""Event numbers are signed 32-bit: bit 31 is never set."""

PRIVATE_SLOTS: Final = 0x40FF_0000
SHARED_SLOTS: Final = 0x40FF_0100
"""Event numbers of the first slot for bound interrupts of each type: the end of the vendors' range, where a machine
description is least likely to have events of its own.
"""
MAX_PRIVATE_SLOTS: Final = 4
MAX_SHARED_SLOTS: Final = 64

MAX_NESTING: Final = 2
"""One normal and one critical handler: nothing preempts its own class (DEN0054 4.3.2)."""
