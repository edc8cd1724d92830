"""`qemu-sdei wait`: wait for the end of a guest that runs elsewhere, and return what `run` returns there."""

from __future__ import annotations

import argparse
import time
from typing import Any, Final

from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.output import add_verbosity, print_json, say
from qemu_sdei.errors import GuestTimeoutError, LostGuestError, ProtocolError, SdeiError, UsageError

_LOOK: Final = 0.1
_UNTOLD: Final = 1


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "wait",
        description="Wait until a guest has ended, and return what `run` returns there: the status of its command, 255 "
        "if its kernel has panicked, 143 if it was ended by `stop`. The end of a guest that ran in the background "
        "(`run -d`) is kept, so that this may come after it; asked for once it is forgotten.",
    )
    add_guest(parser)
    parser.add_argument("--timeout", type=float, metavar="S", help="wait at most S seconds, then return 1")
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir, rundir_ended

    if args.timeout is not None and not args.timeout > 0:
        raise UsageError("--timeout must be more than 0 seconds")
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    found = None
    try:
        guest = rundir.find(args.guest)
    except UsageError:
        found = None if args.guest is None else rundir_ended.find(args.guest)
        if found is None:
            raise
        status, words, name = found.status, found.words, found.name
    else:
        status, words, name = _wait(guest, deadline)
    rundir_ended.forget(name)
    if args.json:
        print_json({"name": name, "status": status, "words": words})
    elif words and not args.quiet:
        say(f"qemu-sdei: {words}", error=True)
    return status


def _wait(guest: Any, deadline: float | None) -> tuple[int, str, str]:
    """Status, words and last name of a guest that ends."""
    from qemu_sdei import rundir, rundir_ended
    from qemu_sdei.guest.supervisor_client import ask

    def step(_: dict[str, Any]) -> None:
        if deadline is not None and time.monotonic() > deadline:
            raise _LateError

    while True:
        if guest.owned:
            try:
                answer = ask(guest.owner, "wait", {}, step, identity=guest.identity)
                status, words = answer.get("status"), answer.get("words")
                if type(status) is not int or not 0 <= status <= 255 or not isinstance(words, str):
                    raise ProtocolError("the guest's supervisor did not say how it ended")
                return status, words, guest.name
            except _LateError:
                raise GuestTimeoutError(f"guest {guest.name!r} has not ended in that time; it runs on") from None
            except (LostGuestError, UsageError):
                pass  # its supervisor was killed, has left it to another one, or is just ending
        there = [each for each in rundir.running() if each.identity == guest.identity]
        if not there:
            found = rundir_ended.find(guest.name)
            if found is not None:
                return found.status, found.words, guest.name
            raise SdeiError(
                f"guest {guest.name!r} has ended without its supervisor, which was killed: nobody knows how it ended"
            )
        guest = there[0]
        if deadline is not None and time.monotonic() > deadline:
            raise GuestTimeoutError(f"guest {guest.name!r} has not ended in that time; it runs on")
        time.sleep(_LOOK)


class _LateError(Exception):
    """The time is over."""
