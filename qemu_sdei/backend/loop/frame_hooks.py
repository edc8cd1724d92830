"""Frames of which more is wanted than an answer: a hold point, RAM that is still arriving, heartbeats of the guest.

While nothing of this is wanted, `Server` answers frames without it: it costs on the hot path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from qemu_sdei.backend.loop.event_log import EventLog
from qemu_sdei.backend.loop.hold_points import HoldPoint
from qemu_sdei.backend.loop.kicks import Kicks
from qemu_sdei.backend.loop.late_calls import LateCalls
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from qemu_sdei.smccc.ids import FUNCTION_MASK

_WFI: Final = int(AnswerFlag.WFI)


class FrameLoop(Protocol):
    """What the hooks ask of the loop that sees the frames."""

    @property
    def paused(self) -> bool:
        """Whether no frame is answered."""

    def pause(self) -> None:
        """Answer no frame from now on."""

    def answer(self, pe: int, s: int) -> bool:
        """Answer frame `s` of a PE. Returns whether a user's service may have taken long."""

    def writes_ram(self, frame: memoryview) -> bool:
        """Whether to answer a frame writes what a device of ours gives into guest RAM."""


class FrameHooks:
    """What is wanted of the frames of one guest.

    Attributes:
        hold_point: pause when it is reached.
        arriving: guest RAM is not all there, QEMU still fetches it.
        on_heartbeat: called, once, after the next frame: the guest runs.
        heartbeat_ms: have the guest give a heartbeat that often, in milliseconds; 0: take those that it gives.
        heartbeat_ns: when the last frame came that was looked at here, by the log's clock; None: none came.
    """

    def __init__(self, loop: FrameLoop, guest: ServedGuest, kicks: Kicks, log: EventLog, late: LateCalls) -> None:
        self._loop = loop
        self._late = late
        self._window = guest.window
        self._firmware = guest.firmware
        self._kicks = kicks
        self._log = log
        self.hold_point: HoldPoint | None = None
        self.arriving = False
        self.on_heartbeat: Callable[[], None] | None = None
        self.heartbeat_ms = 0
        self.heartbeat_ns: int | None = None

    @property
    def wanted(self) -> bool:
        """Whether frames are to come here."""
        return (
            self._late.wanted
            or self.hold_point is not None
            or self.arriving
            or self.on_heartbeat is not None
            or self.heartbeat_ms > 0
        )

    def frame(self, pe: int, s: int) -> bool:
        """Answer a frame, up to the hold point that somebody waits for; returns as `FrameLoop.answer`."""
        loop, point = self._loop, self.hold_point
        if loop.paused:
            return False
        posted = self._window.frames[pe]
        if self.arriving and (
            (posted[Word.KIND] == Kind.RESET and self._firmware.boot.is_boots(pe, posted)) or loop.writes_ram(posted)
        ):
            loop.pause()  # a boot writes RAM, and QEMU could not put in place what it fetches there
            return False
        if self._late.wanted and self._late.puts_off(pe, s, posted):
            return False
        function = posted[Word.FUNCTION] & FUNCTION_MASK
        self.heartbeat_ns = self._log.clock()
        if point is not None and point.before(self._firmware, pe, posted):
            self._reached()
            return False
        slow = loop.answer(pe, s)
        if point is not None and point.after(self._firmware, pe, function):
            self._reached()
        if self.on_heartbeat is not None:
            called, self.on_heartbeat = self.on_heartbeat, None
            called()
        return slow

    def changed(self) -> None:
        """The host has changed the state of events, without a frame: an injection, or KVM's registers."""
        point = self.hold_point
        if point is not None and not self._loop.paused and point.reached(self._firmware):
            self.heartbeat_ns = self._log.clock()
            self._reached()

    def _reached(self) -> None:
        self.hold_point = None
        self._loop.pause()
        self._log.note("held", 0)

    def ask_for_heartbeat(self) -> None:
        """Kick CPU 0, which each kick reaches first; its frame is the heartbeat. While it waits in the monitor to be
        woken (`CPU_SUSPEND`, `SYSTEM_SUSPEND`), it is left alone.
        """
        if not self._window.frames[0][Word.FLAGS] & _WFI:
            self._kicks.kick(0)

    def forget(self) -> None:
        """Nothing is wanted any more."""
        self.hold_point = self.on_heartbeat = self.heartbeat_ns = None
        self.heartbeat_ms = 0
