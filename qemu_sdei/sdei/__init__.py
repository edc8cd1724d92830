"""The SDEI core (DEN0054 v1.1): pure, deterministic, without I/O. `Dispatcher` is what the firmware talks to."""

from qemu_sdei.sdei.dispatcher import Dispatcher, Trigger
from qemu_sdei.sdei.events import EventDescription, EventType, Priority
from qemu_sdei.sdei.profile import Profile
from qemu_sdei.sdei.pstate import CpuFeatures

__all__ = ["CpuFeatures", "Dispatcher", "EventDescription", "EventType", "Priority", "Profile", "Trigger"]
