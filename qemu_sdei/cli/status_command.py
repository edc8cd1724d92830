"""`qemu-sdei status`: what is known of a running guest, once or again and again."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.guest_name import add_guest, check_vcpu
from qemu_sdei.cli.output import add_verbosity, print_json, say
from qemu_sdei.cli.screen import raw
from qemu_sdei.cli.symbol_options import add_symbol_options, symbols_of
from qemu_sdei.errors import LostGuestError, NotDeliveredError, ProtocolError, UsageError

if TYPE_CHECKING:
    from qemu_sdei.guest.overview import Overview

_WATCH: Final = 2.0
"""Seconds between two looks, where `--watch` says nothing."""
_CLEAR: Final = "\x1b[H\x1b[2J\x1b[3J"


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "status",
        description="Show a running guest: its processes; for each vCPU its power state, SDEI mask, running handlers "
        "and last known place; for each event its state, since when, its triggers, and why a pending "
        "event is not delivered; and how often each firmware call was made. -v adds events that are not "
        "registered.",
    )
    add_guest(parser, "name", directory=True)
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=_WATCH,
        metavar="S",
        help=f"show it again every S seconds (default: {_WATCH:g}), with rates, until the guest ends; "
        "with --json one object a line",
    )
    parser.add_argument("--registers", type=int, metavar="N", help="also show the current registers of vCPU N")
    add_symbol_options(parser)
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    if args.watch is not None and not 0.05 <= args.watch < math.inf:
        raise UsageError("--watch needs a number of seconds, 0.05 or more")
    check_vcpu(args.registers)
    from qemu_sdei import rundir
    from qemu_sdei.cli.record_feed import RecordFeed
    from qemu_sdei.guest.overview import Overview, name_addresses

    guest = rundir.find(args.name)
    with ExitStack() as stack:
        overview = stack.enter_context(Overview(guest))
        # Those of the guest's own kernel take a second to load, for which a script should not wait.
        wanted = bool(args.symbols) or (sys.stdout.isatty() and not args.json)
        symbols = symbols_of(args, guest) if wanted else None
        feed = None if symbols is None else stack.enter_context(closing(RecordFeed(overview.client)))

        def look() -> dict[str, Any]:
            status = _look(args, overview)
            if symbols is not None and feed is not None:
                for record in feed.poll():
                    symbols.learn(record)
                name_addresses(status, symbols.name)
            return status

        if args.watch is not None:
            return _watch(args, overview, look)
        status = look()
        if args.json:
            print_json(status)
        else:
            _show(args, status)
    return 0


def _look(args: argparse.Namespace, overview: Overview) -> dict[str, Any]:
    status = overview.look()
    if args.registers is not None:
        if args.registers >= len(status.get("pes", ())):
            raise UsageError(f"there is no vCPU {args.registers}: this guest has {len(status.get('pes', ()))}")
        status["registers"] = overview.registers(args.registers)
    return status


def _show(args: argparse.Namespace, status: dict[str, Any]) -> None:
    from qemu_sdei.cli.status_view import show

    try:
        show(status, everything=args.verbose > 0)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ProtocolError(f"the backend's status is not of the protocol's form ({error!r})") from None


def _watch(args: argparse.Namespace, overview: Overview, look: Callable[[], dict[str, Any]]) -> int:
    """Look and show until the guest ends."""
    from qemu_sdei.guest.overview import rates

    before: dict[str, Any] = {}
    name = overview.directory.name
    while True:
        try:
            status = look()
        except (LostGuestError, NotDeliveredError) as error:
            if not before or not (overview.ended or isinstance(error, NotDeliveredError)):
                raise
            if not args.json:
                moved = isinstance(error, NotDeliveredError)
                say(str(error).partition(";")[0] if moved else f"guest {name!r} has ended")
            return 0
        name = overview.directory.name
        status["rates"] = rates(before, status)
        if args.json:
            raw(sys.stdout).write(json.dumps(status).replace("\x7f", "\\u007f") + "\n")
        else:
            if sys.stdout.isatty():
                raw(sys.stdout).write(_CLEAR)
            say(f"--- {time.strftime('%H:%M:%S')}, every {args.watch:g} s")
            _show(args, status)
        sys.stdout.flush()
        before = status
        time.sleep(args.watch)
