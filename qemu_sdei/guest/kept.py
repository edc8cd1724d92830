"""What is kept of a guest beyond its end: the whole trace, and what its console has shown."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest
    from qemu_sdei.vm.options import GuestOptions


@dataclass(frozen=True)
class Kept:
    """Two files, which are there when the guest has ended (the trace also before)."""

    trace: Path
    console: Path

    @classmethod
    def at(cls, stem: Path) -> Kept:
        """Files beside each other that begin with `stem`."""
        return cls(stem.with_suffix(".trace"), stem.with_suffix(".console"))

    def options(self, options: GuestOptions) -> GuestOptions:
        """`options` for a guest whose trace is kept here."""
        return replace(options, trace=self.trace)

    def take_console(self, guest: Guest) -> None:
        """Keep the console of a guest that is about to end. Without room on the disk there is none."""
        with contextlib.suppress(OSError):
            self.console.write_text(guest.console, errors="backslashreplace")
