"""The whole exception tree of the project.

`UsageError` is what a user can put right: the command line prints its one line and exits with 2, with no traceback.
`GuestError` and below are about a guest that went away or did not do what was asked: they carry what a person needs
to find out why.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qemu_sdei.printable import message_lines, printable

_PACKAGE: Final = Path(__file__).parent


class SdeiError(Exception):
    """Base class of all errors that this package raises on purpose."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython and notebooks show in place of a traceback: the user's own frames, and the message
        (IPython's documentation, "Integrating your objects with IPython").
        """
        import traceback  # a command has no use for it

        frames = [frame for frame in traceback.extract_tb(self.__traceback__) if _is_theirs(Path(frame.filename))]
        lines = "".join(traceback.format_list(frames)).splitlines()
        return [*lines, *message_lines(f"{type(self).__name__}: {self}")]


def _is_theirs(file: Path) -> bool:
    """Whether it is neither ours nor IPython's, which runs what is typed."""
    return not file.is_relative_to(_PACKAGE) and "IPython" not in file.parts


class UsageError(SdeiError):
    """The request is not valid; the message says why and what to do (exit code 2)."""

    exit_code = 2


class UntrustedError(UsageError):
    """A saved guest needs more rights than a guest from a stranger gets; `trust` gives them."""

    def __init__(self, message: str, wants: list[str]) -> None:
        super().__init__(message)
        self.wants = wants
        """What it wants, one line each."""


class CperError(UsageError):
    """Bytes, JSON or values are not a valid error record (UEFI 2.10 appendix N).

    Attributes:
        offset: place of the fault in bytes from the start of the input; None: it has no place.
        field: path of the field, such as `sections[1].error_information[0].type`; "": no field.
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
    """A guest, a backend, a client or a file sent data that is malformed."""


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
    """QEMU or the backend did not start."""


class LostGuestError(GuestError):
    """QEMU ended before the request was done."""


class EndedGuestError(LostGuestError):
    """Somebody ended the guest from outside, for example by `qemu-sdei stop`; the message says who (exit code 143)."""

    exit_code = 143


class UnreachableError(GuestError):
    """QEMU probably lives, but its QMP socket does not answer."""


class StandsStillError(GuestError):
    """The guest could not be resumed: its QEMU hangs, or cannot be reached now. In the second case it is resumed as
    soon as it can be reached.
    """


class GuestPanicError(GuestError):
    """The guest's kernel panicked (exit code 255)."""

    exit_code = 255


class GuestTimeoutError(GuestError):
    """A wait reached its limit; the message says what it waited for."""


class KdumpError(GuestError):
    """A crash dump is not complete. `stages` has the stages that were reached, and the exit code is the last of them.

    10: the kernel did not crash; 11: the crash was seen; 12: the capture kernel has started; 13: its init has started;
    14: it has SDEI again; 15: the vmcore is complete, but the guest did not power off.
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
    """An injected event was not delivered; the message says why (not registered, disabled, masked, ...)."""


class ExpectationError(SdeiError):
    """The guest did not react to an injected error as expected; the message says what it did instead."""


class BusyError(NotDeliveredError):
    """A service is in the middle of its micro-operations, and its progress cannot be saved now. Try again a moment
    later.
    """
