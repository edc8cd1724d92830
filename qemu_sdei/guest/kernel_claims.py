"""A kernel's first words on the console, where no other kernel was heard to leave: an old log, or a kernel that another
one has started in silence. The firmware knows, as soon as that one has called it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from qemu_sdei.vm.console import Console

_LOOK: Final = 0.3
"""Seconds between two looks at what the firmware counts."""


class KernelClaims:
    """Settles such words on one guest's console."""

    def __init__(self, console: Console, boots: Callable[[], int], kernels: Callable[[], int | None]) -> None:
        """`boots`: resets so far. `kernels`: kernels that have begun since the last one, as the firmware counts them;
        None: not known now.
        """
        self._console = console
        self._boots = boots
        self._kernels = kernels
        self._kernel = (0, 1)
        """Which kernel was last known to run: resets before it, and its number since."""
        self._dismissed = -1
        self._looked = 0.0
        """Newest claimed boot on the console that is settled, and when the firmware was asked of one."""

    def look(self) -> None:
        """Ask the firmware of the newest words, if they are not settled; the console is told of another kernel."""
        claim, now = self._console.claimed, time.monotonic()
        if claim <= self._dismissed or now - self._looked < _LOOK:
            return
        self._looked = now
        boots, kernels = self._boots(), self._kernels()
        before = self._kernel[1] if self._kernel[0] == boots else 1
        if kernels is not None and kernels > before and boots == self._boots():
            self._kernel, self._dismissed = (boots, kernels), claim
            self._console.replaced(claim)

    def settle(self) -> None:
        """The kernel that runs now is known: its shell has spoken."""
        self._kernel = (self._boots(), self._kernels() or 1)
        self._dismissed = self._console.claimed

    def dismiss(self, position: int) -> None:
        """Words before `position` of the console were those of no kernel."""
        if self._console.claimed < position:
            self._dismissed = self._console.claimed
