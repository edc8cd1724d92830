"""`qemu-sdei save`: write a running guest into a directory."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from qemu_sdei import paths
from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.hold import add_hold, hold_of
from qemu_sdei.cli.move_progress import Shown
from qemu_sdei.cli.output import Progress, add_verbosity, print_json, say

_PATIENCE = 240.0


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "save",
        description="Save the running guest NAME, with RAM, devices and firmware state, into the new directory DIR. "
        "The guest is paused meanwhile, and then runs on. `qemu-sdei restore` restores it, as often as "
        "you like.",
    )
    add_guest(parser)
    parser.add_argument("directory", metavar="DIR", help="directory to create")
    parser.add_argument("--end", action="store_true", help="end the guest after saving it")
    add_hold(parser, "save")
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    return save(args, args.directory, args.end)


def save(args: argparse.Namespace, directory: str, end: bool) -> int:
    """Save `args.guest` into `directory`, and say so."""
    from qemu_sdei import rundir
    from qemu_sdei.guest.supervisor_client import ask

    guest = rundir.find(args.guest)
    hold = hold_of(args, guest)
    request = {"path": str(paths.absolute(directory)), "end": end, "hold": hold and asdict(hold)}
    with Progress(args.quiet) as progress:
        result = ask(
            guest.owner,
            "save",
            request,
            Shown(progress),
            identity=guest.identity,
            patience=_PATIENCE + args.timeout,
        )
    if args.json:
        print_json(result)
    elif not args.quiet:
        say(f"guest {guest.name!r} is saved in {directory}: {result['bytes'] / (1 << 20):.1f} MiB")
    return 0
