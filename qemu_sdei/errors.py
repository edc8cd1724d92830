"""The whole exception tree of the project.

`UsageError` is what a user can put right: the command line prints its one line and exits with 2, with no traceback.
`GuestError` and below are about a guest that went away or did not do what was asked: they carry what a person needs
to find out why.
"""

from __future__ import annotations

from pathlib import Path

from qemu_sdei.printable import message_lines, printable


class SdeiError(Exception):
    """Base of everything that this package raises on purpose."""

    exit_code = 1


class UsageError(SdeiError):
    """The user asked for something that cannot be; the message says what and what to do (exit code 2)."""

    exit_code = 2


class UntrustedError(UsageError):
    """A saved guest wants what one that somebody sent must not have; `trust` lets it."""

    def __init__(self, message: str, wants: list[str]) -> None:
        super().__init__(message)
        self.wants = wants
        """What it wants, one line each."""


class CperError(UsageError):
    """The bytes, the JSON or the values of an error record (UEFI 2.10 appendix N) cannot be.

    Attributes:
        offset: in bytes from the start of what was read; None if the fault has no place in it.
        field: path of the field, such as `sections[1].error_information[0].type`; "" if it is about none.
    """

    def __init__(self, message: str, *, offset: int | None = None, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.field = field

    def __str__(self) -> str:
        place = ([] if self.offset is None else [f"offset {self.offset:#x}"]) + ([self.field] if self.field else [])
        return f"{', '.join(place)}: {self.message}" if place else self.message

    def below(self, path: str) -> CperError:
        """The same fault, seen from the structure that `path` is in."""
        field = path + ("." if path and self.field and not self.field.startswith("[") else "") + self.field
        return CperError(self.message, offset=self.offset, field=field)


class ProtocolError(SdeiError):
    """A peer (guest, backend, client, file) sent something that is not of the protocol's form."""


class GuestError(SdeiError):
    """Something went wrong with a running guest."""

    def __init__(
        self,
        message: str,
        *,
        command: list[str] | None = None,
        console: list[str] | None = None,
        trace: Path | None = None,
        output: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.command = command or []
        self.console = console or []
        self.trace = trace
        self.output = output
        self.explanation: list[str] = []
        """What the firmware makes of it, as lines (`explain`); empty: nothing was found."""

    def __str__(self) -> str:
        lines = message_lines(self.message)
        if self.command:
            lines.append("  command line: " + printable(" ".join(self.command), None))
        if self.output:
            lines.append("  QEMU said: " + "\n    ".join(map(printable, self.output.strip().split("\n"))))
        if self.console:
            lines.append("  last console lines:")
            lines += ["    " + printable(line.expandtabs()) for line in self.console]
        if self.explanation:
            lines.append("  what `qemu-sdei explain` says of it:")
            lines += ["    " + printable(line) for line in self.explanation]
        if self.trace is not None:
            lines.append(f"  logs and trace: {printable(self.trace)}")
        return "\n".join(lines)


class LaunchError(GuestError):
    """QEMU or the backend did not come up."""


class LostGuestError(GuestError):
    """QEMU ended while something was still wanted from the guest."""


class EndedGuestError(LostGuestError):
    """Somebody ended the guest from outside, such as `qemu-sdei stop`; the message says who (exit code 143)."""

    exit_code = 143


class UnreachableError(GuestError):
    """QEMU lives, as far as is known, and its QMP socket cannot be reached."""


class StandsStillError(GuestError):
    """The guest could not be told to go on: its QEMU cannot be reached now (it is told when it can be), or hangs."""


class GuestPanicError(GuestError):
    """The guest's kernel panicked (exit code 255)."""

    exit_code = 255


class GuestTimeoutError(GuestError):
    """A wait reached its limit; the message says what was waited for."""


class KdumpError(GuestError):
    """A crash dump did not come to its end; `stages` says how far it came, and so does the exit code.

    10: the kernel did not crash; 11: the crash was seen; 12: the capture kernel has started; 13: its init has; 14: it
    has SDEI again; 15: the vmcore is there, but the guest did not power off.
    """

    def __init__(
        self, message: str, *, stages: list[str], exit_code: int, console: list[str] | None = None, vmcore: Path | None
    ) -> None:
        super().__init__(message, console=console)
        self.stages = stages
        self.exit_code = exit_code
        self.vmcore = vmcore
        """The dump, if it is there all the same."""


class NotDeliveredError(SdeiError):
    """An injected event was not delivered; the message says why (unregistered, disabled, masked, ...)."""


class ExpectationError(SdeiError):
    """A guest did not make of an injected error what was expected; the message says what came in place of it."""


class BusyError(NotDeliveredError):
    """A service is amid its micro-operations, and its progress cannot be written down: a moment later it can."""
