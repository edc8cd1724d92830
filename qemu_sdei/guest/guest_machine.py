"""`Guest` as a machine: its processes, QMP, resets, its end."""

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
        """Execute a QMP command, and return what it returns.

        Args:
            command: name of the command, such as "query-status".
            arguments: its arguments; an underscore in a name stands for a hyphen.

        Raises:
            GuestError: QEMU refused the command; the message has its words.
            LostGuestError: QEMU has ended.
        """
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.loop.call(self.placement.supervisor.execute(command, words), silence.longest(_QMP_TIMEOUT))

    def wait_resumed(self, timeout: float | None = None) -> None:
        """Wait until the vCPUs of a guest with `GuestOptions.paused` run: until `qemu-sdei resume` or `qmp("cont")`
        resumes it. For any other guest it returns at once.

        `timeout`: seconds to wait; None: no limit.

        Raises:
            GuestTimeoutError: nobody resumed the guest within `timeout`.
            GuestError: QEMU refused; the message has its words.
            LostGuestError: QEMU has ended.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self.qmp("query-status")["status"] == machine_control.UNSTARTED:
            if time.monotonic() > deadline:
                raise self.console_text.timeout_error(f"nobody resumed the paused guest within {timeout:g} s")
            time.sleep(_RESUMED_LOOK)

    def reset(self) -> None:
        """Reset the machine (QMP `system_reset`), without a warning to the guest, and return when it was reset.

        Raises:
            GuestTimeoutError: the machine was not reset in time.
            GuestError: QEMU refused; the message has its words.
            LostGuestError: QEMU has ended.
        """
        boots = self.reset_count
        self.qmp("system_reset")
        with self.console_text.changed:
            done = self.console_text.changed.wait_for(lambda: self.reset_count != boots, _QMP_TIMEOUT)
        if not done:
            raise self.console_text.timeout_error(f"the machine was not reset within {_QMP_TIMEOUT:g} s")

    def wait_off(self, timeout: float = 60.0) -> PowerOff:
        """Wait until QEMU has ended, and return how it did.

        `timeout`: seconds to wait.

        Raises:
            GuestTimeoutError: QEMU did not end within `timeout`.
            GuestPanicError: the guest panicked and hangs.
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
        """The newest 256 resets, each with `guest` (True: the guest asked for it), `reason` (QEMU's word) and
        `position` (of the console at that time, in characters).
        """
        with self.console_text.changed:
            return self.placement.supervisor.resets.newest()

    @property
    def reset_count(self) -> int:
        """How many times the machine was reset since its first boot, by the guest or from outside."""
        return self.placement.supervisor.resets.count

    @property
    def command_line(self) -> list[str]:
        """Command line of QEMU, one word each."""
        return self.placement.supervisor.command

    @property
    def qemu_pid(self) -> int | None:
        """Process id of QEMU; None: it has ended."""
        return self.placement.supervisor.qemu_pid

    @property
    def backend_pid(self) -> int | None:
        """Process id of the present backend; it changes when the backend is restarted. None: there is none now."""
        return self.placement.supervisor.backend_pid

    @property
    def backend_starts(self) -> int:
        """How many times a backend was started: 1 if it never died."""
        return self.placement.supervisor.backend_starts
