"""`qemu-sdei stop`: end running guests, whoever owns them."""

from __future__ import annotations

import argparse
import time
from typing import Any, Final

from qemu_sdei.cli.output import add_verbosity
from qemu_sdei.errors import GuestError, GuestTimeoutError, UsageError

_PATIENCE: Final = 20.0
_STOPPED: Final = 5.0
"""Seconds for which the supervisor may be stopped."""
_BACKEND: Final = 5.0
"""Seconds for the backend to answer; after that it is killed, and its supervisor starts another one."""
_LOOK: Final = 0.02


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "stop",
        description="End guests at once, as pulling the plug does (disk images stay consistent for QEMU, not for the "
        "guest), and leave nothing of them. The terminal or script that owns one is told.",
    )
    parser.add_argument(
        "guests", metavar="NAME", nargs="*", help="guests (see `qemu-sdei list`); without one, the only one that runs"
    )
    parser.add_argument("--ownerless", action="store_true", help="all guests whose owner was killed")
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
        end(guest)
        return
    _check_supervisor(guest.name, stopped.owner(guest.path))
    try:
        with ControlClient(guest.control, identity=guest.identity, timeout=_BACKEND) as client:
            client.shutdown()
    except GuestTimeoutError:
        locks.end_holders(guest.path / rundir.BACKEND_LOCK)
        with ControlClient(guest.control, identity=guest.identity) as client:
            client.shutdown()
    deadline = time.monotonic() + _PATIENCE
    # Another guest may have the name as soon as this one is gone.
    while guest.path.exists() and rundir.identity(guest.path) in ("", guest.identity):
        if time.monotonic() > deadline:
            raise GuestError(
                f"guest {guest.name!r} has not ended within {_PATIENCE:g} s: look at its supervisor, process "
                f"{guest.pid}; when that is killed, try again"
            )
        time.sleep(_LOOK)


def _check_supervisor(name: str, pid: int | None) -> None:
    """Raise `GuestError` if the supervisor is stopped, and stays so: it could not end the guest."""
    from qemu_sdei import stopped

    deadline = time.monotonic() + _STOPPED
    while stopped.is_stopped(pid):
        if pid is not None and time.monotonic() > deadline:
            raise GuestError(
                f"guest {name!r} was not ended: {stopped.described('supervisor', pid)}, `kill -KILL {pid}` ends it; "
                f"then try again"
            )
        time.sleep(_LOOK)
