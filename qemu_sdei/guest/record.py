"""What the parts of a `Guest` share: what it was asked to be, its console, and where it is now."""

from __future__ import annotations

import secrets

from qemu_sdei.errors import SdeiError
from qemu_sdei.guest.end_told import EndTold
from qemu_sdei.guest.onlookers import Onlookers, Seat
from qemu_sdei.guest.placement import Placement
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.plan import Plan
from qemu_sdei.vm.supervisor import Supervisor


class GuestRecord:
    """One guest. Its placement is changed by `settle` only."""

    def __init__(self, options: GuestOptions, progress: Progress = no_progress) -> None:
        self.options = options
        self.progress = progress
        self.console = Console(panic_ends=not options.goes_on)
        self.nonce = secrets.token_hex(8)
        """What its shell's words are known by."""
        self.earlier: list[str] = []
        """Nonces that the guest had before a snapshot of another run was loaded: a reset boots its own initramfs."""
        self.onlookers = Onlookers()
        """Who gets the console's bytes."""
        self.seat = Seat()
        """Whose keys reach the console."""
        self.end = EndTold()
        """How it ended, for those who wait."""
        self.placement: Placement | None = None
        """None: it is not started, or was let go of."""

    @property
    def here(self) -> Placement:
        """Where it is. Raises `SdeiError`: it is not started."""
        if self.placement is None:
            raise SdeiError("the guest is not started: use it in a `with`, or call start()")
        return self.placement

    @property
    def nonces(self) -> tuple[str, ...]:
        """All that its shell's words may be known by, the present one first."""
        return self.nonce, *self.earlier

    def check_started(self) -> None:
        """Raise `SdeiError` unless it is started."""
        _ = self.here

    @property
    def plan(self) -> Plan:
        """What it runs as. Raises as `here`."""
        return self.here.plan

    @property
    def supervisor(self) -> Supervisor:
        """Of its processes now. Raises as `here`."""
        return self.here.supervisor

    def settle(self, placement: Placement) -> None:
        """The guest is there now; whoever waits looks again."""
        with self.console.changed:
            self.placement = placement
            self.console.changed.notify_all()

    def is_now(self, nonce: str) -> None:
        """The guest is another boot than the one that was started, from a snapshot."""
        if nonce != self.nonce:
            self.earlier = list(dict.fromkeys((*self.earlier, self.nonce)))
            self.nonce = nonce

    def arrived(self, options: GuestOptions, nonce: str | None) -> None:
        """It came from another host: its options and the words of its shell are those it has brought."""
        self.options = options
        self.console.panic_ends = not options.goes_on
        self.nonce = nonce or self.nonce
