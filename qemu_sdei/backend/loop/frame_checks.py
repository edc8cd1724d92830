"""Which frames are the monitor's own: the window is in guest RAM, so the guest may have forged one."""

from __future__ import annotations

from typing import Final

from qemu_sdei.backend.loop.event_log import EventLog, complain
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.monitor.layout import Kind, Word, done_word

_MAX_SEQ: Final = 1 << 47
"""No monitor gets there, and the journal has 48 bits for it."""


class FrameChecks:
    """Tells which frames are the monitor's own, and notes those that are not."""

    def __init__(self, guest: ServedGuest, log: EventLog) -> None:
        self._guest = guest
        self._log = log
        self._told = False
        """The user knows of forged RESET frames."""

    def takes(self, pe: int, s: int, frame: memoryview) -> bool:
        """Whether a number is good that does not follow the last one: if this is the first that we see of a guest that
        ran before. Else somebody other than the monitor wrote it, and the frame is left alone (the CPU's own next frame
        follows the last good number).
        """
        last = self._guest.answered[pe]
        if frame[Word.KIND] == Kind.RESET and s < _MAX_SEQ:
            if pe == 0 and not self._guest.firmware.boot.is_proven(frame):
                self.forged_reset(s)
                return False
            return True  # what was posted before the reset is void, forged numbers and all
        done = frame[done_word(self._guest.firmware.machine.monitor)]
        if last == 0 and s != frame[Word.ACK] and done + 1 == s < _MAX_SEQ:
            return True
        why = f"sequence number {s:#x} after {last:#x} is not the monitor's; frame ignored"
        self._log.note("reject", pe, why=why)
        return False

    def forged_reset(self, s: int) -> None:
        """CPU 0 has not come out of reset: the guest has written this frame. SEQ is put back, so that CPU 0's own next
        frame, which may have this number, is news.
        """
        why = "the guest has forged a RESET frame, or QEMU runs another guest's monitor; ignored"
        self._log.note("reject", 0, why=why)
        if not self._told:
            self._told = True
            complain(
                "a RESET frame does not have the number that is in monitor.bin: the guest has written it, or QEMU was "
                "started with another monitor.bin; it is ignored, as others like it will be"
            )
        guest = self._guest
        if guest.window.seq[0] == s:
            guest.window.seq[0] = guest.seen[0] = guest.answered[0]
