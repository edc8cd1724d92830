"""`qemu-sdei restore`: start a guest again that was saved, with its console."""

from __future__ import annotations

import argparse
from typing import Any

from qemu_sdei.cli.interact import concluded, interact
from qemu_sdei.cli.output import Progress, add_verbosity, say
from qemu_sdei.errors import UntrustedError


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "restore",
        description="Restore the guest that `qemu-sdei save` wrote into DIR, and connect the terminal to its "
        "console. DIR names programs, drives and shares of this host that the guest uses; without "
        "--trust it may use none of them.",
    )
    parser.add_argument("directory", metavar="DIR", help="directory that `qemu-sdei save` wrote; it is not changed")
    parser.add_argument("--name", help="name of the guest, for other commands (default: guest, guest-2, ...)")
    parser.add_argument(
        "--qemu", metavar="FILE", help="qemu-system-aarch64 to use (default: the one that the guest was started with)"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="trust DIR: let the guest use what DIR names (QEMU, its options, services, drives, shares, "
        "network, files)",
    )
    add_verbosity(parser, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei.guest.guest import Guest

    with Progress(args.quiet) as progress:
        try:
            guest = Guest.saved(args.directory, name=args.name, qemu=args.qemu, trust=args.trust, progress=progress)
        except UntrustedError as error:
            say(*(f"qemu-sdei: {args.directory} wants {want}" for want in error.wants), error=True)
            raise
        return concluded(guest, lambda: interact(guest, args, progress))
