"""What PSCI asks for, as part of the answer to its caller: a CPU that stops, waits or loses its context; the GPIO."""

from __future__ import annotations

from typing import Final

from qemu_sdei.backend.firmware import power_down
from qemu_sdei.backend.firmware.core import PARK, Core, Steps
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import AnswerFlag, SysReg
from qemu_sdei.monitor.ops import read_sysreg, write_phys

_GPIO_POWEROFF: Final = 0
_GPIO_RESET: Final = 1
_WFI: Final = int(AnswerFlag.WFI)
_REPOST: Final = int(AnswerFlag.REPOST)


class AnsweredPower:
    """PSCI's `PowerControl`, whose methods it documents."""

    def __init__(self, core: Core) -> None:
        self._machine = core.machine
        self._dispatcher = core.dispatcher
        self._answer = core.answer
        self._observer = core.observer
        self._quirks = core.quirks

    def start_cpu(self, pe: int) -> None:
        """See `PowerControl`."""
        self._dispatcher.kicks.append(pe)
        self._observer.tell("power", pe, state="on-pending")

    def stop_cpu(self, pe: int) -> None:
        """See `PowerControl`."""
        self._dispatcher.power_off(pe)
        self._answer.flags |= PARK
        self._observer.tell("power", pe, state="off")

    def standby(self, pe: int) -> None:
        """See `PowerControl`."""
        self._answer.flags |= _WFI

    def suspend(self, pe: int, entry: int, context: int) -> None:
        """See `PowerControl`. There is no state of being suspended: the answer is to wait in EL3, then come up. Where
        to stands in the frame meanwhile.
        """
        self._dispatcher.suspended(pe)
        self._answer.wake = (entry, context)
        self._answer.flags |= _REPOST
        self._answer.ops[:0] = power_down.look(None)
        self._observer.tell("power", pe, state="suspended", entry=entry)

    def in_handler(self, pe: int) -> bool:
        """See `PowerControl`."""
        return bool(self._dispatcher.running(pe))

    def kernel_begins(self, pe: int) -> Steps | None:
        """See `PowerControl`. A kernel that another has started, on a CPU that was not powered down, has active
        priorities where that one left an interrupt's handler: by a panic in an SDEI handler that interrupted it.
        """
        self._machine.kernels += 1
        self._observer.tell("kernel", pe, kernel=self._machine.kernels)
        if self._machine.kernels < 2:
            return None
        hooks = self._quirks.hooks
        return self._priorities(pe, hooks is not None and hooks.kernel_keeps_priorities(pe))

    def _priorities(self, pe: int, keeps: bool) -> Steps:
        """What Linux does itself as it boots, by a write to ICC_AP1R0_EL1 that QEMU ignores where there is an EL3."""
        found = yield read_sysreg(SysReg.ICC_AP1R0_EL1)
        ends = power_down.ends(found.value)
        if ends:
            self._observer.priorities(pe, "kernel", found.value & 0xFFFF_FFFF, keeps=keeps)
        if ends and not keeps:
            done = yield ends
            if ends[-1].argument == SysReg.ICC_AP1R0_EL1:
                self._observer.priorities(pe, "kernel", done[-1].value & 0xFFFF_FFFF)
        return None

    def system_off(self) -> None:
        """See `PowerControl`."""
        self._pull_pin(_GPIO_POWEROFF, "off")

    def system_reset(self) -> None:
        """See `PowerControl`."""
        self._pull_pin(_GPIO_RESET, "resetting")

    def _pull_pin(self, pin: int, what: str) -> None:
        gpio = layout.POWER_GPIO
        self._answer.ops.append(write_phys(gpio + 0x400, 3, 4))  # GPIODIR: both pins are outputs
        self._answer.ops.append(write_phys(gpio + (4 << pin), 1 << pin, 4))  # GPIODATA, masked by the address
        self._answer.flags |= PARK
        self._observer.tell(what, 0)
