"""`qemu-sdei exec`: run a command in a guest that runs elsewhere; its bytes and its exit status are its own."""

from __future__ import annotations

import argparse
import math
import shlex
import time
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.output import Progress, add_verbosity, say
from qemu_sdei.errors import GuestError, GuestPanicError, GuestTimeoutError, LostGuestError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_sdei.guest.exec_session import ExecSession
    from qemu_sdei.rundir import Running

_LOOK: Final = 2.0
"""Seconds without a word of the agent after which somebody else is asked what the guest does."""
_LONG: Final = 12.0
"""The same of a command that runs: the agent is asked every 5 s whether it is there."""
_LOOK_AGAIN: Final = 2.0
_SILENT: Final = 20.0
_GONE: Final = 5.0
"""Seconds for a guest that migrates to be found again."""


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "exec",
        usage="%(prog)s [options] [NAME] [-- COMMAND ...]",
        description="Run a command in a guest that runs (with our own initramfs), beside its console: standard input, "
        "output, error and the exit status are the command's own, byte for byte. One word is a script for the guest's "
        "shell, several are a program and its arguments; without any it is a shell. At a terminal the command gets one "
        "of its own (Ctrl-] leaves it). When this process ends, the command does.",
    )
    add_guest(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "-t", "--tty", action="store_true", default=None, help="give the command a terminal, even if yours is not one"
    )
    how.add_argument(
        "-T", "--no-tty", dest="tty", action="store_false", help="give the command no terminal, even if yours is one"
    )
    parser.add_argument("--timeout", type=float, metavar="S", help="end the command after S seconds, and return 1")
    add_verbosity(parser, messages=True)
    parser.set_defaults(run=run, tty=None)


def script(words: list[str]) -> str:
    """The shell script that runs a command line. Raises `UsageError`: it is none."""
    text = words[0] if len(words) == 1 else shlex.join(words)
    if not text.strip() or "\0" in text:
        raise UsageError("the command to run in the guest is empty or holds a NUL character")
    return text


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir
    from qemu_sdei.cli.carry import carry, output, wants_terminal
    from qemu_sdei.cli.own_terminal import terminal_size
    from qemu_sdei.guest.exec_session import ExecSession, claim, release

    if args.guest_command == []:
        raise UsageError("there is no command after --: give one, or leave -- out")
    if args.timeout is not None and not 0 < args.timeout < math.inf:
        raise UsageError("--timeout must be more than 0 seconds")
    words = args.guest_command
    terminal = wants_terminal(args.tty)
    text = script(words) if words is not None else "cd; exec sh -i" if terminal else "cd; exec sh"
    guest = rundir.find(args.guest)
    port, lock = claim(guest.path, guest.name)
    place = _Place(guest)
    session = ExecSession(place.directory, port, text, output, terminal=terminal, size=terminal_size())
    with Progress(args.quiet) as progress:
        try:
            return carry(session, _Check(session, place, progress, args.timeout), terminal=terminal)
        finally:
            session.close()
            release(lock)


class _Place:
    """Where the guest is, by its identity."""

    def __init__(self, guest: Running) -> None:
        self.guest = guest
        self._lost = 0.0

    def directory(self) -> Path | None:
        """Its run directory now; None: it has ended."""
        from qemu_sdei import guest_identity, rundir

        if guest_identity.read(self.guest.path) == self.guest.identity and self.guest.path.exists():
            self._lost = 0.0
            return self.guest.path
        for each in rundir.running():
            if each.identity == self.guest.identity:
                self.guest, self._lost = each, 0.0
                return each.path
        self._lost = self._lost or time.monotonic()
        return self.guest.path if time.monotonic() - self._lost < _GONE and self.guest.path.exists() else None


class _Check:
    """Sees that a command that says nothing is waited for only while it can go on."""

    def __init__(self, session: ExecSession, place: _Place, progress: Progress, timeout: float | None) -> None:
        self._session, self._place, self._progress = session, place, progress
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._looked = 0.0
        self._told = ""

    def __call__(self) -> None:
        """Raises `GuestPanicError`, `LostGuestError`, `GuestError`, `GuestTimeoutError`."""
        now = time.monotonic()
        if self._session.started:
            self._progress.done()
        if self._deadline is not None and now > self._deadline:
            what = "the command has not ended" if self._session.started else "the command has not begun"
            raise GuestTimeoutError(f"{what} within {self._timeout:g} s, and was given up")
        silent = now - self._session.heard
        if silent < (_LOOK if not self._session.welcomed else _LONG) or now - self._looked < _LOOK_AGAIN:
            return
        self._looked = now
        self._look(silent)

    def _look(self, silent: float) -> None:
        from qemu_sdei import stopped
        from qemu_sdei.guest.guest_state import state
        from qemu_sdei.guest.machine_control import run_state

        guest = self._place.guest
        found = state(guest.owner, guest.identity)
        if found is not None and found.panicked:
            raise GuestPanicError(f"the kernel of guest {guest.name!r} has panicked: see `qemu-sdei logs {guest.name}`")
        if found is not None and self._session.started and not found.booted:
            raise LostGuestError("the guest was reset during its command, or another kernel has begun")
        if found is not None and found.agent == "none":
            raise GuestError(
                f"guest {guest.name!r} takes no commands: its kernel has no virtio_console, or no modules were found"
            )
        why = stopped.of_guest(guest.path)
        if not why and found is not None and found.moves:
            why = "it is being migrated or saved"
        if not why and found is not None:
            try:
                runs = run_state(guest.owner, guest.identity)
            except (GuestError, UsageError, LostGuestError):
                runs = "running"
            why = "" if runs == "running" else f"it is {runs}"
        if not self._session.welcomed and not why and (found is None or found.booted) and silent > _SILENT:
            raise GuestTimeoutError(f"the agent in guest {guest.name!r} does not answer")
        if not why:
            why = "it is booting" if found is not None and not found.booted else "it does not answer"
        if why != self._told:
            self._told = why
            if self._session.started:
                say(f"qemu-sdei: guest {guest.name!r}: {why}; its command is waited for", error=True)
            else:
                self._progress(f"guest {guest.name!r}: {why}")
