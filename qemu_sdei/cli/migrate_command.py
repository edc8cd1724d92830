"""`qemu-sdei migrate`: move a running guest to a new QEMU and a new backend on this host."""

from __future__ import annotations

import argparse
from typing import Any

from qemu_sdei.cli import migrate_remote
from qemu_sdei.cli.hold import add_hold, hold_of
from qemu_sdei.cli.move_progress import Shown
from qemu_sdei.cli.output import Progress, add_verbosity, print_json, say
from qemu_sdei.config import check_name
from qemu_sdei.errors import UsageError

_PATIENCE = 60.0


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "migrate",
        description="Move the running guest SRC to a new QEMU with a new backend on this host, under the name DEST. "
        "It keeps its configuration, and its terminal or script. With --to it goes to another host. "
        "After a failure or Ctrl-C the guest runs on as SRC.",
    )
    parser.add_argument("guest", metavar="SRC", help="name of the guest (see `qemu-sdei list`)")
    parser.add_argument(
        "destination",
        metavar="DEST",
        nargs="?",
        help="new name of the guest (default: the next free name, such as demo-2 for demo)",
    )
    parser.add_argument(
        "--route",
        metavar="R",
        help="how RAM moves. shared: both QEMUs map the same RAM (default); copy: the guest is paused while "
        "RAM is sent; live: the guest runs while RAM is sent (default with --to)",
    )
    parser.add_argument(
        "--postcopy",
        action="store_true",
        help="as live, but after a first pass the guest resumes as DEST, and missing pages are fetched",
    )
    parser.add_argument(
        "--multifd", type=int, default=0, metavar="N", help="send RAM by N connections in parallel (copy, live)"
    )
    parser.add_argument(
        "--transport",
        default="unix",
        metavar="T",
        help="connection between the QEMUs: unix (default), or tcp (over loopback)",
    )
    parser.add_argument("--no-verify", action="store_true", help="do not compare RAM after it was sent")
    parser.add_argument(
        "--to-file", metavar="DIR", help="save SRC into the new directory DIR and end it, as `save --end`"
    )
    add_hold(parser, "migrate")
    migrate_remote.add_options(parser)
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir
    from qemu_sdei.cli.save_command import save
    from qemu_sdei.guest.supervisor_client import ask
    from qemu_sdei.migration.options import LIVE, POSTCOPY, SHARED, MigrationOptions

    if args.destination is not None:
        check_name(args.destination)
    migrate_remote.check(args)
    _check(args)
    if args.to_file is not None:
        return save(args, args.to_file, True)
    guest = rundir.find(args.guest)
    hold = hold_of(args, guest)
    options = MigrationOptions(
        route=POSTCOPY if args.postcopy else args.route or (SHARED if args.to is None else LIVE),
        verify=not args.no_verify,
        hold=hold,
        transport=args.transport,
        multifd=args.multifd,
    )
    with Progress(args.quiet) as progress:
        if args.to is not None or args.resume:
            return migrate_remote.run(args, guest, options, Shown(progress), progress)
        result = ask(
            guest.owner,
            "migrate",
            {"name": args.destination, "options": options.to_json()},
            Shown(progress),
            identity=guest.identity,
            patience=_PATIENCE + args.timeout + options.timeout,
        )
    if args.json:
        print_json(result)
    elif not args.quiet:
        _print(result)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise `UsageError` when options contradict each other."""
    if args.postcopy and args.route not in (None, "postcopy"):
        raise UsageError(f"--postcopy is a route of its own: leave out --route {args.route}")
    if args.to_file is None:
        return
    if args.destination is not None:
        raise UsageError("--to-file: DEST is not known yet; name it when it comes back (restore DIR --name DEST)")
    for option, usual in (("route", None), ("postcopy", False), ("multifd", 0), ("transport", "unix")):
        if getattr(args, option) != usual:
            raise UsageError(f"--{option} is between two QEMUs: leave it out with --to-file")
    if args.no_verify or args.resume:
        name = "resume" if args.resume else "no-verify"
        raise UsageError(f"--{name} is for another QEMU: leave it out with --to-file")


def _print(result: dict[str, Any]) -> None:
    pages = result["pages_differing"]
    sent = result["transferred"] / 1024
    lines = [
        f"guest {result['source']!r} is {result['destination']!r} now",
        f"  in all {result['total_ms']:.0f} ms; QEMU sent {sent:.0f} KiB",
        f"  {migrate_remote.downtime(result)}",
    ]
    if result["route"] == "postcopy":
        lines.append(f"  {result['page_requests']} pages were waited for in the {result['fetch_ms']:.0f} ms after that")
    elif result["route"] != "shared":
        found = "not compared" if pages is None else f"compared: {pages} pages had not arrived, and were repaired"
        lines.append(f"  RAM was {found if pages != 0 else 'compared: all of it had arrived'}")
    say(*lines)
