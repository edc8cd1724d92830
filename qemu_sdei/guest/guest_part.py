"""What every part of `Guest` has."""

from __future__ import annotations

from qemu_sdei.guest.placement import Placement
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.options import GuestOptions


class GuestPart:
    """A side of a `Guest`: its record, and what all of them read there."""

    def __init__(self, record: GuestRecord) -> None:
        self._record = record

    @property
    def placement(self) -> Placement:
        """Where the guest runs now: run directory, plan, RAM, processes.

        Raises:
            SdeiError: the guest is not started.
        """
        return self._record.here

    @property
    def options(self) -> GuestOptions:
        """The options that the guest was made with."""
        return self._record.options

    @property
    def console_text(self) -> Console:
        """The console as an object, which can wait for text."""
        return self._record.console
