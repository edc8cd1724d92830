"""Names of arguments and results of the calls that the firmware serves, as their specifications call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qemu_sdei.sdei import constants as sdei
from qemu_sdei.services.psci import Code

_ON: Final = ("target", "entry", "context")

ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    # DEN0054 5.1
    "SDEI_VERSION": (),
    "SDEI_EVENT_REGISTER": ("event", "entry", "argument", "flags", "affinity"),
    "SDEI_EVENT_ENABLE": ("event",),
    "SDEI_EVENT_DISABLE": ("event",),
    "SDEI_EVENT_CONTEXT": ("index",),
    "SDEI_EVENT_COMPLETE": ("status",),
    "SDEI_EVENT_COMPLETE_AND_RESUME": ("address",),
    "SDEI_EVENT_UNREGISTER": ("event",),
    "SDEI_EVENT_STATUS": ("event",),
    "SDEI_EVENT_GET_INFO": ("event", "info"),
    "SDEI_EVENT_ROUTING_SET": ("event", "mode", "affinity"),
    "SDEI_PE_MASK": (),
    "SDEI_PE_UNMASK": (),
    "SDEI_INTERRUPT_BIND": ("intid",),
    "SDEI_INTERRUPT_RELEASE": ("event",),
    "SDEI_EVENT_SIGNAL": ("event", "target"),
    "SDEI_FEATURES": ("feature",),
    "SDEI_PRIVATE_RESET": (),
    "SDEI_SHARED_RESET": (),
    # DEN0022 5.1
    "PSCI_VERSION": (),
    "CPU_SUSPEND": ("power_state", "entry", "context"),
    "CPU_OFF": (),
    "CPU_ON": _ON,
    "AFFINITY_INFO": ("target", "lowest_level"),
    "MIGRATE": ("target",),
    "MIGRATE_INFO_TYPE": (),
    "SYSTEM_OFF": (),
    "SYSTEM_RESET": (),
    "SYSTEM_RESET2": ("type", "cookie"),
    "SYSTEM_OFF2": ("type", "cookie"),
    "PSCI_FEATURES": ("function",),
    "SYSTEM_SUSPEND": ("entry", "context"),
    "NODE_HW_STATE": ("target", "level"),
    # DEN0028 7
    "SMCCC_VERSION": (),
    "SMCCC_ARCH_FEATURES": ("function",),
    "SMCCC_ARCH_SOC_ID": ("type",),
}
"""Arguments from x1 on. A function that is not here shows x1 to x5."""

_STATUS: Final = frozenset(
    (
        *("SDEI_EVENT_REGISTER", "SDEI_EVENT_ENABLE", "SDEI_EVENT_DISABLE", "SDEI_EVENT_UNREGISTER"),
        *("SDEI_EVENT_ROUTING_SET", "SDEI_PE_UNMASK", "SDEI_INTERRUPT_RELEASE", "SDEI_EVENT_SIGNAL"),
        *("SDEI_PRIVATE_RESET", "SDEI_SHARED_RESET", "SDEI_EVENT_COMPLETE", "SDEI_EVENT_COMPLETE_AND_RESUME"),
        *("CPU_SUSPEND", "CPU_OFF", "CPU_ON", "MIGRATE", "SYSTEM_RESET2", "SYSTEM_SUSPEND"),
    )
)
"""Functions whose result 0 is SUCCESS; of the others 0 is a value."""

_SDEI_CODES: Final = {
    sdei.NOT_SUPPORTED: "NOT_SUPPORTED",
    sdei.INVALID_PARAMETERS: "INVALID_PARAMETERS",
    sdei.DENIED: "DENIED",
    sdei.PENDING: "PENDING",
    sdei.OUT_OF_RESOURCE: "OUT_OF_RESOURCE",
}
_PSCI_CODES: Final = {int(code): code.name for code in Code}


def arguments_of(function: str, registers: list[int]) -> dict[str, int]:
    """Arguments by name. `registers`: x1 to x5."""
    names = ARGUMENTS.get(function)
    if names is None:
        return {f"x{n}": value for n, value in enumerate(registers, 1)}
    return dict(zip(names, registers, strict=False))


def is_refusal(record: Mapping[str, Any]) -> bool:
    """Whether a record is of a call that was refused: its result is an error. A value may look like one when it is
    taken as a signed number, as addresses do that EVENT_CONTEXT answers; PENDING says that it is done, later.
    """
    return record.get("result_name") not in (None, "SUCCESS", "PENDING")


def result_name(function: str, result: int) -> str | None:
    """The name of a result (signed); None: it is a value. EVENT_CONTEXT answers registers, and a register with all bits
    set is common, but not a call of it by software that SDEI does not serve.
    """
    if function == "SDEI_EVENT_CONTEXT" and result == sdei.NOT_SUPPORTED:
        return None
    if result == 0:
        return "SUCCESS" if function in _STATUS else None
    return (_SDEI_CODES if function.startswith("SDEI_") else _PSCI_CODES).get(result)
