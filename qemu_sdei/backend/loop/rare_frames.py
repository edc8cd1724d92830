"""Frames that are no calls: resets, kicks and interrupts that came back, micro-operations that were done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qemu_sdei.backend.loop import recovery
from qemu_sdei.backend.loop.event_log import EventLog
from qemu_sdei.backend.loop.frame_checks import FrameChecks
from qemu_sdei.backend.loop.journal import Record
from qemu_sdei.backend.loop.kicks import Kicks
from qemu_sdei.backend.loop.looks import Looks
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import Kind, Word
from qemu_sdei.trace.slots import DONE, IGNORED, POSTED

if TYPE_CHECKING:
    from qemu_sdei.backend.loop.device_frames import DeviceFrames


class RareFrames:
    """Answers the frames of one guest that are no calls.

    Attributes:
        device: what answers accesses to a device that is ours, if there is one. They are in neither journal nor ring.
    """

    def __init__(
        self,
        guest: ServedGuest,
        log: EventLog,
        checks: FrameChecks,
        kicks: Kicks,
        looks: Looks,
        on_reset: Callable[[], None],
    ) -> None:
        """`on_reset` is called when the machine was reset, before that frame is answered."""
        self.device: DeviceFrames | None = None
        self._guest = guest
        self._journal = guest.journal
        self._log = log
        self._ring = log.ring
        self._checks = checks
        self._kicks = kicks
        self._looks = looks
        self._on_reset = on_reset
        self._heads = [frame[layout.HEAD] for frame in guest.window.frames]
        self._posted = [frame[POSTED] for frame in guest.window.frames]
        self._done = [frame[DONE] for frame in guest.window.frames]

    def frame(self, pe: int, s: int, frame: memoryview, kind: int) -> bool:
        """Answer one, and keep it in the ring; False: it is left alone."""
        if self.device is not None and self.device.take(pe, s, frame):
            return True
        seen = self._log.look()
        begun = self._ring.begin(pe, self._posted[pe])
        taken = self._answer(pe, s, frame, kind)
        self._ring.finish(begun, self._done[pe], frame[Word.FLAGS] if taken else IGNORED, seen)
        return taken

    def _answer(self, pe: int, s: int, frame: memoryview, kind: int) -> bool:
        """A frame that is no call; False: it is left alone."""
        firmware = self._guest.firmware
        if kind == Kind.RESET and pe == 0 and not firmware.boot.is_proven(frame):
            self._guest.answered[pe] = s - 1
            self._checks.forged_reset(s)
            return False
        if kind == Kind.RESET:
            # The monitor looks at it next, and a guest may have written there.
            self._guest.window.announce(firmware.machine.monitor)
        if kind in (Kind.KICK, Kind.INTERRUPT):
            self._kicks.on_the_way[pe] = 0
            self._kicks.heard = True
            if self._looks.wants(pe):
                if kind == Kind.KICK:
                    self._looks.answer(frame)
                    return True
                self._kicks.kick(pe)
        elif kind == Kind.OPS and self._looks.is_one(frame) and pe not in firmware.exchange.in_flight:
            self._journal.append(Record.INPUT, pe, s, self._looks.take(pe, frame))
            firmware.power.kicked(pe, frame, self._guest.window.contexts[pe])
            if firmware.power.started:
                self._guest.starts.note()
            return True
        boots = firmware.boot.boots(pe, frame)
        if kind == Kind.RESET and pe == 0:
            self._kicks.forget()
            self._looks.forget()
            self._on_reset()
        if not boots:
            if kind == Kind.OPS:
                self._journal.append_ops(pe, s, self._heads[pe], frame[layout.OPS])
            else:
                self._journal.append(Record.INPUT, pe, s, self._heads[pe])
        firmware.handle(pe, frame, self._guest.window.contexts[pe])
        if firmware.power.started:
            self._guest.starts.note()
        if boots:
            recovery.checkpoint(self._guest, {pe: frame})
            frame[Word.PROOF] = 0  # not before: who is killed here must know it again, and not later: the guest runs
            self._kicks.try_out()
        return True
