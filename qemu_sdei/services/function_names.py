"""Names of function ids for people: what is served here, and what guests are known to ask for besides."""

from __future__ import annotations

from typing import Final

from qemu_sdei.services.built_in import SERVICES

UNKNOWN: Final = -1
"""In place of a function id: all those that nobody serves."""
OTHER: Final = -2
"""Functions that are served, beyond those that are counted one by one."""
_SMC64: Final = 0x4000_0000

NAMES: Final = {
    # PSCI 1.3 (DEN0022F 5.1), the ids that are not implemented here as well.
    0x8400_0005: "MIGRATE",
    0x8400_0007: "MIGRATE_INFO_UP_CPU",
    0x8400_000B: "CPU_FREEZE",
    0x8400_000C: "CPU_DEFAULT_SUSPEND",
    0x8400_000D: "NODE_HW_STATE",
    0x8400_000E: "SYSTEM_SUSPEND",
    0x8400_000F: "PSCI_SET_SUSPEND_MODE",
    0x8400_0010: "PSCI_STAT_RESIDENCY",
    0x8400_0011: "PSCI_STAT_COUNT",
    0x8400_0013: "MEM_PROTECT",
    0x8400_0014: "MEM_PROTECT_CHECK_RANGE",
    0x8400_0015: "SYSTEM_OFF2",
    # SMCCC (DEN0028 7).
    0x8000_0002: "SMCCC_ARCH_SOC_ID",
    0x8000_3FFF: "SMCCC_ARCH_WORKAROUND_3",
    0x8000_7FFF: "SMCCC_ARCH_WORKAROUND_2",
    0x8000_8000: "SMCCC_ARCH_WORKAROUND_1",
    # What a stock Linux looks for elsewhere: FF-A (DEN0077), OP-TEE.
    0x8400_0063: "FFA_VERSION",
    0xBF00_FF01: "TRUSTED_OS_CALL_UID",
    **{function: name for service in SERVICES for function, name in service.names.items()},
}


def function_name(function: int) -> str:
    """Name of a function id, in either width, or the id in hex."""
    if function < 0:
        return "unknown" if function == UNKNOWN else "other"
    return NAMES.get(function) or NAMES.get(function & ~_SMC64) or f"{function:#010x}"
