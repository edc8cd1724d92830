"""Frames of which more is wanted than an answer: a hold point, RAM that is still arriving, signs that the guest runs.

While nothing of this is wanted, `Server` answers frames without it: it costs on the hot path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from qemu_sdei.smccc.ids import FUNCTION_MASK

if TYPE_CHECKING:
    from qemu_sdei.backend.loop.hold_points import HoldPoint
    from qemu_sdei.backend.loop.server import Server

_WFI: Final = int(AnswerFlag.WFI)


class Watched:
    """What is wanted of the frames of one guest.

    Attributes:
        hold_point: stand still when it is reached.
        arriving: guest RAM is not all there, QEMU still fetches it.
        on_sign: called, once, after the next frame: the guest runs.
        every_ms: have the guest give a sign that often, in milliseconds; 0: take those that it gives.
        last_ns: when the last watched frame came, by the server's clock; None: none came.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.hold_point: HoldPoint | None = None
        self.arriving = False
        self.on_sign: Callable[[], None] | None = None
        self.every_ms = 0
        self.last_ns: int | None = None

    @property
    def wanted(self) -> bool:
        """Whether frames are to come here."""
        return self.hold_point is not None or self.arriving or self.on_sign is not None or self.every_ms > 0

    def frame(self, pe: int, s: int) -> bool:
        """Answer a frame, up to the hold point that somebody waits for; returns as `Server.answer`."""
        server, point = self._server, self.hold_point
        if server.held:
            return False
        posted = server.window.frames[pe]
        if self.arriving and posted[Word.KIND] == Kind.RESET and server.firmware.is_boots(pe, posted):
            server.hold()  # a boot writes RAM, and QEMU could not put in place what it fetches there
            return False
        function = posted[Word.FUNCTION] & FUNCTION_MASK
        self.last_ns = server.clock()
        if point is not None and point.before(server.firmware, pe, posted):
            self._reached()
            return False
        slow = server.answer(pe, s)
        if point is not None and point.after(server.firmware, pe, function):
            self._reached()
        if self.on_sign is not None:
            called, self.on_sign = self.on_sign, None
            called()
        return slow

    def changed(self) -> None:
        """The host has changed the state of events, without a frame: an injection, or KVM's registers."""
        point = self.hold_point
        if point is not None and not self._server.held and point.reached(self._server.firmware):
            self.last_ns = self._server.clock()
            self._reached()

    def _reached(self) -> None:
        self.hold_point = None
        self._server.hold()
        self._server._note("held", 0)

    def ask_for_sign(self) -> None:
        """Kick CPU 0, which each kick reaches first; its frame is the sign. While it waits in the monitor to be woken
        (`CPU_SUSPEND`, `SYSTEM_SUSPEND`), it is left alone.
        """
        if not self._server.window.frames[0][Word.FLAGS] & _WFI:
            self._server.kick(0)

    def forget(self) -> None:
        """Nothing is wanted any more."""
        self.hold_point = self.on_sign = self.last_ns = None
        self.every_ms = 0
