"""The SDEI core (DEN0054 v1.1): pure, deterministic, without I/O. `Dispatcher` is what the firmware talks to."""

import warnings
from typing import Any

from qemu_sdei.sdei.dispatcher import Dispatcher, Trigger
from qemu_sdei.sdei.events import EventDescription, EventType, Priority
from qemu_sdei.sdei.machine_description import MachineDescription
from qemu_sdei.sdei.pstate import CpuFeatures

__all__ = ["CpuFeatures", "Dispatcher", "EventDescription", "EventType", "MachineDescription", "Priority", "Trigger"]


def __getattr__(name: str) -> Any:
    """The former name `Profile`; it goes with the next release."""
    if name == "Profile":
        warnings.warn("qemu_sdei.sdei.Profile is MachineDescription now", DeprecationWarning, stacklevel=2)
        return MachineDescription
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
