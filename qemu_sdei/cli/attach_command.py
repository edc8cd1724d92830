"""`qemu-sdei attach`: take over a running guest whose owner was killed."""

from __future__ import annotations

import argparse
from typing import Any

from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.interact import concluded, in_background, interact
from qemu_sdei.cli.output import Progress, add_verbosity


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "attach",
        description="Take over a guest whose owner was killed (kill -9), and connect the terminal to its console, as "
        "`run` does: Ctrl-] detaches from it or ends it. The last console output is shown first.",
    )
    add_guest(parser)
    parser.add_argument("-d", "--detach", action="store_true", help="in the background: no console, return at once")
    add_verbosity(parser, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir
    from qemu_sdei.guest.guest import Guest

    name = args.guest or rundir.find(None).name
    if args.detach:
        return in_background(args, lambda progress: Guest.adopt(name, progress=progress))
    with Progress(args.quiet) as progress:
        guest = Guest.adopt(name, progress=progress)
        return concluded(guest, lambda: interact(guest, args, progress))
