"""`Guest` as a machine: QMP, resets, its end."""

from __future__ import annotations

import math
import time
from typing import Any, Final

from qemu_sdei.guest import machine_control
from qemu_sdei.guest.guest_part import GuestPart
from qemu_sdei.vm import silence
from qemu_sdei.vm.event_loop import EventLoop
from qemu_sdei.vm.qemu_exit import PowerOff

_QMP_TIMEOUT: Final = 30.0
"""Seconds for the machine to be reset; a command has limits of its own (`qmp.py`)."""
_RESUMED_LOOK: Final = 0.1


class GuestMachine(GuestPart):
    """The machine side of a `Guest`."""

    loop: EventLoop

    def qmp(self, command: str, **arguments: object) -> Any:
        """Execute a QMP command and return what it returns. An underscore in a name stands for QMP's hyphen.

        Raises `GuestError` with QEMU's words, `LostGuestError` when QEMU is gone.
        """
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.loop.call(self.placement.supervisor.execute(command, words), silence.longest(_QMP_TIMEOUT))

    def wait_resumed(self, timeout: float | None = None) -> None:
        """Wait until the vCPUs of a guest run that was started paused (`GuestOptions.paused`): until somebody resumes
        it, by `qemu-sdei resume` or by `qmp("cont")`. Returns at once where it was not.

        Args:
            timeout: seconds; None: no limit.

        Raises `GuestTimeoutError`, and as `qmp`.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self.qmp("query-status")["status"] == machine_control.UNSTARTED:
            if time.monotonic() > deadline:
                raise self.console_text.timeout_error(f"nobody resumed the paused guest within {timeout:g} s")
            time.sleep(_RESUMED_LOOK)

    def reset(self) -> None:
        """Press the machine's reset button (QMP `system_reset`); the guest knows nothing of it before.

        Returns when the machine was reset. Raises as `qmp`, and `GuestTimeoutError`.
        """
        boots = self.reset_count
        self.qmp("system_reset")
        with self.console_text.changed:
            done = self.console_text.changed.wait_for(lambda: self.reset_count != boots, _QMP_TIMEOUT)
        if not done:
            raise self.console_text.timeout_error(f"the machine was not reset within {_QMP_TIMEOUT:g} s")

    def wait_off(self, timeout: float = 60.0) -> PowerOff:
        """Wait until QEMU has ended, and say why it did.

        Raises:
            GuestTimeoutError: not within `timeout` seconds. `GuestPanicError`: the guest panicked and hangs.
            LostGuestError: QEMU ended by an error or a signal.
        """
        deadline = time.monotonic() + timeout
        with self.console_text.changed:
            # Looked up each time: the guest may migrate meanwhile.
            while (off := self.placement.supervisor.power_off) is None:
                if self.console_text.panicked:
                    self.console_text.raise_if_over(0, "the guest to power off")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self.console_text.timeout_error(f"the guest did not power off within {timeout:g} s")
                self.console_text.changed.wait(min(left, 0.5))
            if off.returncode != 0:
                self.console_text.raise_if_over(self.console_text.end, "the guest to power off")
            return off

    @property
    def power_off(self) -> PowerOff | None:
        """How QEMU ended; None while it runs."""
        return self.placement.supervisor.power_off

    @property
    def resets(self) -> list[dict[str, Any]]:
        """QMP's RESET events, the newest 256: {guest, reason, position (of the console then)}."""
        with self.console_text.changed:
            return self.placement.supervisor.resets.newest()

    @property
    def reset_count(self) -> int:
        """How often the machine was reset, by the guest or from outside, since its first boot."""
        return self.placement.supervisor.resets.count
