"""`qemu-sdei ras victim`: a process in a guest whose memory is to fail."""

from __future__ import annotations

import argparse
from typing import Any

from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.output import add_verbosity, print_json, say


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "victim",
        help="start a process in a guest that has a page for an error",
        description="Start a process in a running guest of --ras. It has one page, touches it again and again, and "
        "reports a SIGBUS. Print its process id and the address of its page, for `ras inject --pid`.",
    )
    add_guest(parser, "name")
    parser.add_argument("--early", action="store_true", help="the process asks for an early SIGBUS (PR_MCE_KILL_EARLY)")
    parser.add_argument("--still", action="store_true", help="the process does not touch its page again")
    parser.add_argument("--file", metavar="PATH", help="use a shared page of this file in place of anonymous memory")
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir
    from qemu_sdei.guest.helper import Helper
    from qemu_sdei.guest.ras_victim import Victim

    guest = rundir.find(args.name)
    victim = Victim.start(Helper(guest.path, guest.name).run, early=args.early, still=args.still, file=args.file)
    if args.json:
        print_json({"guest": guest.name, "pid": victim.pid, "virtual": victim.virtual, "report": victim.report})
    else:
        say(f"process {victim.pid}, page at {victim.virtual:#x}; what it says is in the guest's {victim.report}")
    return 0
