"""The SMC calling convention (DEN0028): function ids, services, and the registry that finds the one for a call."""

from qemu_sdei.smccc.ids import NOT_SUPPORTED, Owner
from qemu_sdei.smccc.registry import Registry
from qemu_sdei.smccc.regs import Regs
from qemu_sdei.smccc.service import Call, FunctionRange, Handler, JournalMode, Service, Widths

__all__ = [
    "NOT_SUPPORTED",
    "Call",
    "FunctionRange",
    "Handler",
    "JournalMode",
    "Owner",
    "Registry",
    "Regs",
    "Service",
    "Widths",
]
