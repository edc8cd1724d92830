"""`Guest` and its firmware: what its backend is asked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from qemu_sdei import guest_identity
from qemu_sdei import rundir as files
from qemu_sdei.errors import LostGuestError, SdeiError
from qemu_sdei.guest.control_client import ControlClient, Injection
from qemu_sdei.guest.guest_firmware import GuestFirmware
from qemu_sdei.guest.guest_part import GuestPart
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.symbols.sources import booted_file

if TYPE_CHECKING:
    from qemu_sdei.explain.explanation import Explanation
    from qemu_sdei.guest.nmi import Nmi
    from qemu_sdei.guest.status import Status
    from qemu_sdei.symbols.symbolizer import Symbolizer

T = TypeVar("T")

_END_TOLD: Final = 10.0
"""Seconds from when the run directory is gone until its guest's end is known."""


class GuestBackend(GuestPart):
    """The firmware side of a `Guest`."""

    def __init__(self, record: GuestRecord) -> None:
        super().__init__(record)
        self._firmware: GuestFirmware | None = None
        self._asking = threading.RLock()
        """Held while the connection of the placement is in use: it serves one thread at a time."""

    def inject(
        self,
        event: int | str,
        vcpu: int | None = None,
        *,
        wait: bool = False,
        timeout: float = 5.0,
        when_registered: float | None = None,
    ) -> Injection:
        """Trigger an SDEI event. With `wait`, return when its handler has completed.

        Args:
            event: event number, or its name in the machine description, such as "ghes".
            vcpu: number of the vCPU for a private event; None for a shared event.
            wait: True: wait for the handler.
            timeout: seconds to wait, with `wait`.
            when_registered: seconds to wait first, until the guest has registered and enabled the event; None: do not
                wait.

        Raises:
            UsageError: there is no such event or vCPU.
            NotDeliveredError: the event was not delivered, or its handler did not complete; the message says why.
            LostGuestError: the guest has ended.
        """
        from qemu_sdei.guest import event_targets

        def ask(control: ControlClient) -> Injection:
            number = event_targets.number(control, event)
            if when_registered is not None:
                event_targets.wait_until_listens(control, number, vcpu, when_registered)
            return control.inject(number, vcpu, wait=wait, timeout=timeout)

        return self._ask(ask)

    def nmi(self, vcpu: int | None = None, *, by: str | None = None) -> Nmi:
        """Give the guest an NMI: by AGDI (DEN0093), by event 0, or by a bound watchdog; by the first of these that it
        has registered and enabled.

        Args:
            vcpu: number of the vCPU, where it can be chosen; None: any.
            by: one of `qemu_sdei.guest.nmi.WAYS`: try only this one.

        Raises:
            NotDeliveredError: the guest takes no NMI; the message names the kernel option that adds a handler.
            UsageError: there is no such vCPU or way.
            LostGuestError: the guest has ended.
        """
        from qemu_sdei.guest.nmi import give

        return self._ask(lambda control: give(control, vcpu, by))

    def status(self) -> Status:
        """State of the guest's vCPUs and events: what `qemu-sdei status --json` prints, without `host`, `rates` and
        `registers`.
        """
        return cast("Status", self._ask(ControlClient.status))

    @property
    def firmware(self) -> GuestFirmware:
        """What the firmware does wrong on purpose, to read and to change:
        `guest.firmware.on("CPU_OFF").nth(1).returns("DENIED")`, `guest.firmware.clear()`.
        """
        if self._firmware is None:
            self._firmware = GuestFirmware(self._ask, lambda: booted_file(self.placement.config.boot))
        return self._firmware

    def explain(self, symbolizer: Symbolizer | None = None) -> Explanation:
        """Find out why the guest hangs, as `qemu-sdei explain` does: which vCPU runs which handler, why pending events
        wait, what is wrong and what to do. It takes some 5 s at most, also if the guest or its backend hangs.

        `symbolizer`: names for code addresses (`qemu_sdei.symbols`); None: addresses stay numbers.
        """
        from qemu_sdei.explain.explanation import explain
        from qemu_sdei.guest.picture_taking import take_picture, with_names

        directory = self.placement.directory
        here = files.Running(directory.name, directory.path, os.getpid(), identity=guest_identity.read(directory.path))
        picture = take_picture(here, ended=self.placement.supervisor.power_off is not None)
        return explain(picture if symbolizer is None else with_names(picture, symbolizer))

    def trace(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest trace records of the backend, at most `limit`, oldest first (docs/reference/trace.md)."""
        return self._ask(lambda control: control.trace(limit))

    def _kernels(self) -> int | None:
        try:
            found = self._ask(ControlClient.hello).get("kernels")
        except SdeiError:
            return None
        return found if isinstance(found, int) else None

    def client(self) -> ControlClient:
        """Open another connection to the backend, for a thread of its own, or for `ControlClient.events`. The caller
        closes it.
        """
        known = self._control().identity
        return ControlClient(self.placement.directory / files.CONTROL, identity=known)

    def _control(self) -> ControlClient:
        here = self.placement
        with self.console_text.changed:
            over = here.supervisor.power_off
        if over is not None and over.returncode:
            self.console_text.raise_if_over(self.console_text.end, "the backend's answer")
        if over is not None:
            raise LostGuestError(f"the guest has ended ({over.reason})")
        return here.client

    def _ask(self, question: Callable[[ControlClient], T]) -> T:
        """Ask the backend. The end of a guest is told by what is known of it, and not by its socket that is gone."""
        control = self._control()
        try:
            if not self._asking.acquire(blocking=False):
                # Another thread waits for an answer by that connection, perhaps for long.
                with self.client() as own:
                    return question(own)
            try:
                return question(control)
            finally:
                self._asking.release()
        except LostGuestError:
            if not control.path.parent.is_dir():
                console = self.console_text
                with console.changed:
                    console.changed.wait_for(lambda: console.closed, _END_TOLD)
                    if console.closed:
                        console.raise_if_over(console.end, "the backend's answer")
            raise
