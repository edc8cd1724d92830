"""`qemu-sdei attach`: take over a running guest whose owner was killed."""

from __future__ import annotations

import argparse
from typing import Any

from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.output import Progress, add_verbosity
from qemu_sdei.cli.run_command import interact


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "attach",
        description="A guest goes on when the process that runs it is killed (kill -9). Become its owner, and connect "
        "the terminal to its console, as `run` does: Ctrl-] ends the guest. What it printed last is shown first.",
    )
    add_guest(parser)
    add_verbosity(parser, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir
    from qemu_sdei.guest.guest import Guest

    with Progress(args.quiet) as progress:
        guest = Guest.adopt(args.guest or rundir.find(None).name, progress=progress)
        try:
            return interact(guest, args, progress)
        finally:
            guest.close()
