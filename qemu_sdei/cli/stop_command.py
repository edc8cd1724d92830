"""`qemu-sdei stop`: end running guests, also those of another process."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time
from typing import Any, Final

from qemu_sdei.cli.output import add_verbosity, say
from qemu_sdei.errors import GuestError, GuestTimeoutError, UsageError

WHO: Final = "`qemu-sdei stop`"

_PATIENCE: Final = 20.0
_STOPPED: Final = 5.0
"""Seconds for which the supervisor may be stopped, although it is resumed."""
_BACKEND: Final = 5.0
"""Seconds for the backend to answer; after that it is killed, and its supervisor starts another one."""
_LOOK: Final = 0.02


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "stop",
        description="End guests at once, as if the plug were pulled: disk images stay consistent for QEMU, not for "
        "the guest. Nothing is left behind. Commands that run the guest or wait for it say so, and return 143. `stop` "
        "also ends a guest whose supervisor is stopped or hangs.",
    )
    parser.add_argument(
        "guests", metavar="NAME", nargs="*", help="guests (see `qemu-sdei list`; default: the only running guest)"
    )
    parser.add_argument("--ownerless", action="store_true", help="end all guests whose owner was killed")
    add_verbosity(parser, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir

    wanted = [rundir.find(name) for name in args.guests or ([] if args.ownerless else [None])]
    if args.ownerless:
        names = {guest.name for guest in wanted}
        wanted += [guest for guest in rundir.running() if not guest.owned and guest.name not in names]
    for guest in wanted:
        if guest.path.parent != rundir.base_path():
            raise UsageError(f"{guest.path} is of a QEMU of your own: end that")
    for guest in wanted:
        _stop(guest)
        if not args.quiet:
            print(f"guest {guest.name!r} is ended")
    if not wanted and not args.quiet:
        print("no guest is without an owner")
    return 0


def _stop(guest: Any) -> None:
    from qemu_sdei import locks, rundir, stopped
    from qemu_sdei.guest.adoption import end
    from qemu_sdei.guest.control_client import ControlClient

    if not guest.owned:
        rundir.note_end(guest.path, WHO)
        end(guest)
        return
    supervisor = stopped.owner(guest.path)
    rundir.note_end(guest.path, f"{WHO} (process {os.getpid()})")
    try:
        with _client(guest, ControlClient) as client:
            client.shutdown()
    except GuestTimeoutError:
        locks.end_holders(guest.path / rundir.BACKEND_LOCK)
        if not stopped.is_stopped(supervisor):
            with _client(guest, ControlClient) as client:
                client.shutdown()
    if _gone(guest, supervisor, _PATIENCE):
        return
    # It hangs, a debugger holds it, or it stops again whenever it is resumed: the guest ends without it.
    say(
        f"qemu-sdei: warning: the supervisor of guest {guest.name!r}, process {supervisor or '?'}, did not end it and "
        "was killed",
        error=True,
    )
    locks.end_holders(guest.path / rundir.LOCK)
    for each in rundir.running():
        if each.identity == guest.identity and each.name == guest.name and not each.owned:
            end(each)
    if not _gone(guest, None, _STOPPED):
        raise GuestError(f"guest {guest.name!r} does not end, even when its processes are killed: see `qemu-sdei list`")


def _client(guest: Any, kind: Any) -> Any:
    return kind(guest.control, identity=guest.identity, timeout=_BACKEND, connect_timeout=_BACKEND)


def _gone(guest: Any, supervisor: int | None, patience: float) -> bool:
    """Wait until the guest is gone; one whose supervisor is stopped (Ctrl-Z, a shell's job that wants the terminal) has
    it resumed, so that it can clean up. False: it is still there after `patience` seconds, or its supervisor is stopped
    all the time.
    """
    from qemu_sdei import guest_identity, stopped

    deadline = time.monotonic() + patience
    since = None
    # Another guest may have the name as soon as this one is gone.
    while guest.path.exists() and guest_identity.read(guest.path) in ("", guest.identity):
        now = time.monotonic()
        if supervisor is None or not stopped.is_stopped(supervisor):
            since = None
        else:
            since = since or now
            if now - since > _STOPPED:
                return False
            with contextlib.suppress(OSError):
                os.kill(supervisor, signal.SIGCONT)
        if now > deadline:
            return False
        time.sleep(_LOOK)
    return True
