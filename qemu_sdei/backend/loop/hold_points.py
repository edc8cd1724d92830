"""Hold points: "pause when event E on vCPU N is ...", so that a migration happens exactly there.

Armed, each frame costs a look at the whole status: it is for scripts and tests, not for a guest that must be fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.errors import UsageError
from qemu_sdei.monitor.layout import Kind, Word
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as PsciFunction
from qemu_sdei.services.psci import Power
from qemu_sdei.smccc.ids import FUNCTION_MASK

_Test = Callable[[dict[str, Any], dict[str, Any]], bool]
"""Of (instance, PE), both as in `status`."""

_AFTER: Final[dict[str, _Test]] = {
    "registered": lambda i, p: i["registered"] and not i["enabled"] and not i["running"] and not i["pending"],
    "enabled": lambda i, p: i["registered"] and i["enabled"] and not i["running"] and not i["pending"],
    "pending-masked": lambda i, p: i["pending"] and i["enabled"] and not i["running"] and p["masked"],
    "pending-disabled": lambda i, p: i["pending"] and not i["enabled"] and not i["running"],
    "running": lambda i, p: i["running"] and i["registered"] and not i["pending"],
    "running-pending": lambda i, p: i["running"] and i["pending"],
    "unregister-pending": lambda i, p: i["running"] and not i["registered"],
    "nested": lambda i, p: i["running"] and len(p["running"]) == 2,
}
_OFF: Final = "off"
_BEFORE: Final = {"exchange": None, "resume": int(Function.EVENT_COMPLETE_AND_RESUME)}
STATES: Final = (*_AFTER, _OFF, *_BEFORE)
"""registered, enabled, pending-..., running...: as SDEI names them. nested: a critical handler over a normal one, of
which the event is either. off: the vCPU is in CPU_OFF. exchange: it has called the firmware, and waits for an answer.
resume: it is in COMPLETE_AND_RESUME, answered, and has not returned from the call.
"""

OF_VCPU: Final = (_OFF, "exchange")
"""Of these: states of a vCPU, whatever the events are."""


@dataclass(frozen=True)
class HoldPoint:
    """One of `STATES` of an event on a vCPU; event and vCPU as in `inject`."""

    state: str
    event: int
    vcpu: int

    def check(self, firmware: Firmware) -> None:
        """Raises:
        UsageError: there is no such state, event or vCPU.
        """
        if self.state not in STATES:
            raise UsageError(f"no hold point {self.state!r}; there are {', '.join(STATES)}")
        if not 0 <= self.vcpu < firmware.machine.nr_cpus:
            raise UsageError(f"there is no vCPU {self.vcpu}: the guest has {firmware.machine.nr_cpus}")
        if self.state not in OF_VCPU:
            if not firmware.serves_sdei:
                raise UsageError(f"this guest has no SDEI (--no-sdei): hold points for it are {', '.join(OF_VCPU)}")
            firmware.dispatcher.describe(self.event)

    @property
    def drain(self) -> bool:
        """Whether what is posted is answered once the vCPUs are paused."""
        return self.state == "resume"

    def before(self, firmware: Firmware, pe: int, frame: memoryview) -> bool:
        """Whether this frame is not to be answered any more."""
        if self.state not in _BEFORE or pe != self.vcpu or frame[Word.KIND] != Kind.SMC:
            return False
        wanted = _BEFORE[self.state]
        if wanted is None:
            return True
        running = firmware.dispatcher.status()["pes"][pe]["running"]
        return frame[Word.FUNCTION] & FUNCTION_MASK == wanted and running[-1:] == [self.event]

    def after(self, firmware: Firmware, pe: int, function: int) -> bool:
        """Whether the state is reached with the call of `function` by a PE, which was just answered."""
        if self.state == _OFF:
            return pe == self.vcpu and function == PsciFunction.CPU_OFF and self.reached(firmware)
        return self.reached(firmware)

    def reached(self, firmware: Firmware) -> bool:
        """Whether things are so now."""
        if self.state == _OFF:
            return firmware.machine.epoch > 0 and firmware.psci.power[self.vcpu] is Power.OFF
        test = _AFTER.get(self.state)
        if test is None:
            return False
        status = firmware.dispatcher.status()
        pe = status["pes"][self.vcpu]
        for event in status["events"]:
            if event["event"] == self.event:
                for instance in event["instances"]:
                    if instance["pe"] in (None, self.vcpu):
                        elsewhere = instance.get("running_on") not in (None, self.vcpu)
                        return not elsewhere and bool(test(instance, pe))
        return False
