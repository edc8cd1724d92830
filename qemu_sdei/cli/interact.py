"""A guest of this process from start to end: with its console on the user's terminal, or in the background."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from qemu_sdei.cli.console_size import ConsoleSize
from qemu_sdei.cli.detaching import Ready, Started
from qemu_sdei.cli.detaching import in_background as fork
from qemu_sdei.cli.end_explained import explained
from qemu_sdei.cli.kdump_run import dumped
from qemu_sdei.cli.output import Progress, say
from qemu_sdei.cli.own_terminal import OwnTerminal
from qemu_sdei.cli.signals import Terminated
from qemu_sdei.errors import EndedGuestError, GuestPanicError, SdeiError
from qemu_sdei.vm.options import BUILTIN

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest
    from qemu_sdei.vm.qemu_exit import PowerOff

_FAILED: Final = re.compile(r"^(FAIL: |Bail out!|not ok )", re.MULTILINE)
"""What a bare-metal guest of ours says when it failed: its exit status, so to speak."""
_KEY: Final = "Ctrl-] detaches from it or ends it"
_LOOK: Final = 1.0


def concluded(guest: Guest, work: Callable[[], int]) -> int:
    """Have `work` start the guest and return the exit code; close the guest, and tell those who wait for its end."""
    try:
        status = work()
        guest.conclude(status, "")
        return status
    except SdeiError as error:
        guest.conclude(error.exit_code, str(error).partition("\n")[0])
        raise
    except Terminated as end:
        guest.conclude(128 + end.number, f"its supervisor was ended by signal {end.number}")
        raise
    finally:
        guest.close()
        for warning in guest.warnings:
            say(f"qemu-sdei: warning: {warning}", error=True)


def wait_resumed(guest: Guest, progress: Progress) -> None:
    """Say that a guest is paused, and wait until it is not."""
    if guest.options.paused:
        progress.done()
        say(f"qemu-sdei: guest {guest.name!r} is paused: `qemu-sdei resume {guest.name}` has it run", error=True)
        guest.wait_resumed()


class OwnGuest:
    """The console of a guest of this process: a `terminal.Source`."""

    def __init__(self, guest: Guest, *, terminal: bool) -> None:
        """`terminal`: it is typed at, and not fed by a pipe."""
        self._guest = guest
        self._terminal = terminal
        self._token = secrets.token_hex(8)
        self._heard = False
        self._size = ConsoleSize(lambda: guest.placement.directory.path)

    def write(self, data: bytes) -> bool:
        """See `Source`."""
        if self._guest.type_as(self._token, f"the terminal that runs it (process {os.getpid()})") is not None:
            return False
        self._guest.write(data)
        return True

    def backlog(self) -> int:
        """See `Source`."""
        return self._guest.input_backlog()

    def listens(self) -> bool:
        """See `Source`."""
        if not self._heard:
            guest = self._guest
            shell = guest.placement.plan.own_initramfs and guest.options.command is None
            self._heard = (
                guest.booted
                or (self._terminal and not shell)
                or (shell and (guest.reset_count > 0 or guest.console_text.panicked))
            )
        return self._heard

    def end_input(self, line_ended: bool) -> None:
        """See `Source`."""
        self._guest.end_input(line_ended)

    def ended(self) -> bool:
        """See `Source`."""
        return self._guest.power_off is not None

    def lost_words(self) -> str:
        """See `Source`."""
        who = self._guest.type_as(self._token, "") or "nobody"
        return f"{who} types at this console now: you look on"

    def size(self, rows: int, columns: int) -> None:
        """See `Source`."""
        if self._guest.placement.plan.options.channel and self._guest.type_as(self._token, "") is None:
            self._size.is_now(rows, columns)


def interact(guest: Guest, args: argparse.Namespace, progress: Progress) -> int:
    """Start `guest`, and connect the terminal to its console until either ends. Returns the exit code."""
    from qemu_sdei.cli.terminal import End, Session

    terminal = sys.stdin.isatty()
    watched = not args.quiet and terminal
    session = Session(f"qemu-sdei: {_KEY}\r\n".encode() if watched else b"")
    guest.attach(session.put)
    try:
        guest.start()
        progress.done()
        wait_resumed(guest, progress)
        name = guest.name
        if watched and not OwnTerminal(sys.stdin.fileno()).ours:
            say(f"qemu-sdei: guest {name!r} is running as a job in the background: `fg` and `qemu-sdei console {name}` "
                "give you its console", error=True)  # fmt: skip
        elif watched:
            say(f"qemu-sdei: guest {name!r} is running; {_KEY}", error=True)
        while True:
            end = session.run(OwnGuest(guest, terminal=terminal))
            if end is not End.DETACHED or not (why := guest.bound):
                break
            say(f"qemu-sdei: guest {name!r} cannot be detached: {why}", error=True)
    finally:
        guest.attach(None)
        session.close()
    if end is End.DETACHED:
        return _left(guest, args)
    off = guest.wait_off(1) if end is End.ENDED else None
    if off is None:
        if not args.quiet:
            say("", *explained(guest), "qemu-sdei: ending the guest", error=True)
        guest.conclude(0, "the user of the terminal that ran it has ended it")
    else:
        status, words = outcome(guest, off)
        if not args.quiet:
            say(
                "", f"qemu-sdei: {words.replace('the guest', f'guest {name!r}', 1) if off.moved else words}", error=True
            )
        guest.conclude(status, words)
        if off.by:
            return status
    if guest.options.kdump is not False and off is not None:
        return dumped(guest, args)
    return outcome(guest, off)[0]


def outcome(guest: Guest, off: PowerOff | None) -> tuple[int, str]:
    """Exit code of a guest without a command, and what is said of it."""
    if off is not None and off.moved:
        words = f"the guest is at {off.moved} now"
    elif off is not None and off.by:
        return EndedGuestError.exit_code, f"the guest was ended by {off.by}"
    else:
        words = "" if off is None else f"the guest ended ({off.reason})"
    if guest.console_text.panicked:
        return GuestPanicError.exit_code, words
    failed = str(guest.options.kernel).startswith(BUILTIN) and _FAILED.search(guest.console)
    return 1 if failed else 0, words


def _left(guest: Guest, args: argparse.Namespace) -> int:
    """The guest runs on in the background: another process adopts it."""
    name = guest.name
    guest.release()
    taken = subprocess.run(
        [sys.executable, "-m", "qemu_sdei", "attach", "-q", "--detach", name],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True, check=False,
    )  # fmt: skip
    if taken.returncode == 0 and not args.quiet:
        say(
            f"qemu-sdei: guest {name!r} runs on in the background: `qemu-sdei console {name}` has its console again, "
            f"`qemu-sdei stop {name}` ends it",
            error=True,
        )
    return taken.returncode


def in_background(args: argparse.Namespace, make: Callable[[Progress], Guest]) -> int:
    """Have a process of its own run the guest that `make` describes; say its name when it answers.

    Returns the exit code: there, that of the guest.
    """
    started = fork()
    if isinstance(started, Started):
        if started.word:
            say(started.word)
        return started.status
    with Progress(args.quiet) as progress:
        guest = make(progress)
        return concluded(guest, lambda: _run_on(guest, args, started, progress))


def _run_on(guest: Guest, args: argparse.Namespace, ready: Ready, progress: Progress) -> int:
    from qemu_sdei import rundir_ended

    guest.start()
    name, command = guest.name, guest.options.command is not None
    if guest.placement.plan.own_initramfs and not (command or guest.options.paused or guest.adopted):
        progress(f"booting {name!r}")
        guest.wait_shell()
    progress.done()
    ready(name)
    status, words = 1, ""
    try:
        if command:
            status = guest.wait_command(None, getattr(args, "timeout", None)).status
        else:
            with guest.console_text.changed:
                while (off := guest.power_off) is None:
                    guest.console_text.changed.wait(_LOOK)
            status, words = outcome(guest, off)
    except SdeiError as error:
        status, words = error.exit_code, str(error).partition("\n")[0]
        raise
    except Terminated as end:
        status, words = 128 + end.number, f"its supervisor was ended by signal {end.number}"
        raise
    finally:
        guest.conclude(status, words)
        rundir_ended.keep(rundir_ended.Ended(name, status, words), guest.console.encode())
    return status
