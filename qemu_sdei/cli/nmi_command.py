"""`qemu-sdei nmi`: give a running guest an NMI, by the first way that the guest accepts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.guest_name import add_guest, check_vcpu
from qemu_sdei.cli.output import add_verbosity, print_json, say

if TYPE_CHECKING:
    from qemu_sdei.guest.nmi import Nmi

_WAYS: Final = ("agdi", "agdi-interrupt", "software", "watchdog")
_NAMES: Final = {
    "agdi": "AGDI",
    "agdi-interrupt": "AGDI",
    "software": "the software-signalled event",
    "watchdog": "a bound watchdog",
}


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "nmi",
        description="Give a guest an NMI, as `virsh inject-nmi` does on x86. The first of these that the guest has "
        "registered and enabled is signalled: AGDI (the request for a diagnostic dump and reset), event "
        "0, the event of a bound watchdog. If there is none, say which kernel option would bring one; "
        "the exit code is 1 (docs/howto/nmi.md).",
    )
    add_guest(parser, "name", directory=True)
    parser.add_argument("--vcpu", type=int, metavar="N", help="vCPU that takes the NMI, from 0 (default: any)")
    parser.add_argument("--by", choices=_WAYS, help="use only this way")
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    check_vcpu(args.vcpu)
    from dataclasses import asdict

    from qemu_sdei import rundir
    from qemu_sdei.guest.control_client import ControlClient
    from qemu_sdei.guest.nmi import give

    guest = rundir.find(args.name)
    with ControlClient(guest.control, identity=guest.identity) as client:
        client.hello()
        found = give(client, args.vcpu, args.by)
    if args.json:
        print_json({"guest": guest.name, **asdict(found)})
    elif not args.quiet:
        say(_line(found))
    return 0


def _line(found: Nmi) -> str:
    what = f"event {found.event:#x}" if found.event is not None else f"interrupt {found.intid}"
    where = "" if found.vcpu is None else f" on vCPU {found.vcpu}"
    line = f"NMI by {_NAMES.get(found.by, found.by)}: {what}{where}"
    if found.outcome == "merged":
        line += ", merged with one that was pending"
    return line + (f"; not delivered yet: {found.reason}" if found.reason else "")
