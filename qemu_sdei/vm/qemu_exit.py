"""How a guest's QEMU ended, as data and as errors that say it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

from qemu_sdei.errors import EndedGuestError, LaunchError, LostGuestError, UsageError
from qemu_sdei.vm import process
from qemu_sdei.vm.plan import Plan

_LAST: Final = 3
"""Of QEMU's messages, so many are shown: the reason comes last."""


@dataclass(frozen=True)
class PowerOff:
    """How a guest's QEMU ended."""

    reason: str
    """QEMU's ShutdownCause, such as "guest-shutdown" or "host-signal"; "lost": QEMU died and gave none."""
    guest: bool
    """True: the guest itself asked for it."""
    returncode: int
    """QEMU's exit status; a negative number is the signal that killed it."""
    moved: str = ""
    """The other host on which the guest runs now; "": none."""
    by: str = ""
    """Who ended it from outside, such as "`qemu-sdei stop` (process 123)"; "": nobody."""


def not_taken(complaints: list[str]) -> str:
    """Why a QEMU did not take a guest that arrived, from what it said; "" if it said nothing."""
    # QEMU 11.1 names each register, and then says the same as the others.
    text = "; ".join([line for line in complaints if not line.startswith("handle_cpreg")][-_LAST:])
    if "of device 'cpu'" in text:
        text += " (its CPU has other registers than in the QEMU that the guest comes from: use that one)"
    return text


def launch_error(end: PowerOff, plan: Plan, command: list[str], output: str) -> LaunchError | UsageError:
    """QEMU ended before the guest was up; `output` is what it said."""
    # With nothing but our own words it would be our fault.
    users = bool(plan.options.qemu_args or plan.devices.arguments) or "," in plan.options.cpu
    if users and end.returncode > 0 and (reasons := process.complaints(output)):
        return UsageError(f"QEMU does not take what it was given (--cpu, --drive, --qemu-arg): {'; '.join(reasons)}")
    return LaunchError(
        f"QEMU {process.describe_exit(end.returncode)} before the guest was up", command=command, output=output
    )


def lost(end: PowerOff, plan: Plan, command: list[str], output: str, console: list[str]) -> LostGuestError:
    """QEMU ended while something was wanted of the guest."""
    if end.moved:
        return LostGuestError(f"the guest is at {end.moved} now")
    if end.by:
        return EndedGuestError(f"the guest was ended by {end.by}")
    if end.returncode == 0:
        lines = [] if end.reason == "guest-shutdown" else console
        return LostGuestError(f"the guest ended ({end.reason})", console=lines)
    what = ""
    if end.returncode == -signal.SIGBUS:
        where = plan.options.memory_path
        place = f"in {where}, where" if where is not None else "in the host's memory, where (or in its huge pages)"
        what = f": most likely there was no room left {place} the guest's RAM is"
    return LostGuestError(
        f"QEMU {process.describe_exit(end.returncode)}{what}", command=command, output=output, console=console
    )
