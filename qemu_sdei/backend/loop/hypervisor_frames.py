"""What each frame goes through first, of a guest that runs as under a hypervisor: it came by EL2, and is made one of
the guest's own. Behind this nothing knows of EL2.

It is put around what answers frames when the loop is made, so that other guests do not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable

from qemu_sdei.hypervisor.entries import lift, refuse_smc
from qemu_sdei.monitor.window import Window

AnswerFrame = Callable[[int, int], bool]
"""Answers frame number `s` of a PE; returns whether a user's service may have taken long."""


class HypervisorFrames:
    """The frames of one guest."""

    def __init__(self, window: Window, *, serves_smc: bool) -> None:
        """`serves_smc`: False: an SMC of the guest's own is refused."""
        self._window = window
        self._serves_smc = serves_smc

    def before(self, answer: AnswerFrame) -> AnswerFrame:
        """`answer`, for frames that came by EL2. Numbers in place of names: this is on the way of each call."""
        frames, serves_smc = self._window.frames, self._serves_smc

        def answer_lifted(pe: int, s: int) -> bool:
            frame = frames[pe]
            if frame[17] & 0xC == 8:  # Word.PSTATE, EL2
                lift(frame)
            elif not serves_smc:
                refuse_smc(frame)
            return answer(pe, s)

        return answer_lifted

    def before_unless(self, paused: Callable[[], bool], answer: AnswerFrame) -> AnswerFrame:
        """The same, but frames are left as they are while the guest is `paused`."""
        lifted = self.before(answer)
        return lambda pe, s: False if paused() else lifted(pe, s)
