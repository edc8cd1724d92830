"""Kicks: the host interrupts a PE, which then comes with a frame."""

from __future__ import annotations

from typing import Final

from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.monitor.doorbell import Doorbell
from qemu_sdei.monitor.layout import AnswerFlag, Word
from qemu_sdei.monitor.window import Window
from qemu_sdei.services.psci import Power

_WORD: Final = 0xFFFF_FFFF_FFFF_FFFF


class Kicks:
    """Sends the kicks that the firmware asks for. One for each PE may be on its way; its KICK frame ends it.

    Attributes:
        on_the_way: 1 for each PE whose kick has not come back as a frame yet.
        heard: QEMU is known to have accepted our connection: the guest has rung, a kick has come back as a frame, or
            a byte was read (`is_heard`).
    """

    def __init__(self, window: Window, doorbell: Doorbell, firmware: Firmware) -> None:
        self._window = window
        self._doorbell = doorbell
        self._firmware = firmware
        self.on_the_way = bytearray(window.nr_cpus)
        self.heard = False
        self._tried = False

    def send(self) -> None:
        """Interrupt the PEs that the firmware asks for."""
        wanted = self._firmware.kicks
        rang = False
        for pe in wanted:
            if not self.on_the_way[pe]:
                self.on_the_way[pe] = 1
                self._window.kick[pe] = self._window.kick[pe] + 1 & _WORD
                rang = True
        wanted.clear()
        if rang:
            self._doorbell.ring()

    def kick(self, pe: int) -> None:
        """Interrupt this PE."""
        self._firmware.kicks.append(pe)
        self.send()

    def try_out(self) -> None:
        """Ring for nobody: as soon as QEMU has read the byte, it has accepted our connection. No vCPU comes for it, and
        one that waits in a standby goes on waiting.
        """
        if not self.heard:
            self._tried = True
            self._doorbell.ring()

    def is_heard(self) -> bool:
        """Whether QEMU has accepted our connection, as far as is known."""
        if self._tried and not self.heard:
            self.heard = self._doorbell.taken
        return self.heard

    def forget(self) -> None:
        """None is on its way: the machine was reset, or another guest is served."""
        self.on_the_way[:] = bytes(len(self.on_the_way))

    def repeat(self) -> None:
        """A kick, or the doorbell's byte for it, may have been lost with an earlier backend or QEMU: send each again.

        Who waits in the monitor to be woken (`CPU_SUSPEND`, `SYSTEM_SUSPEND`), or to be started, would come up: so only
        if there is something for it. Each kick reaches CPU 0 first, so none is sent without need.
        """
        firmware = self._firmware
        for pe, frame in enumerate(self._window.frames):
            power = firmware.psci.power[pe]
            waits = power is Power.OFF or frame[Word.FLAGS] & AnswerFlag.WFI
            if power is Power.ON_PENDING or firmware.dispatcher.attention[pe] or not waits:
                firmware.kicks.append(pe)
        self.send()
        self.try_out()
