"""`qemu-sdei ras host-error`: tell a guest of a page of its RAM that has gone bad at the host."""

from __future__ import annotations

import argparse
from typing import Any

from qemu_sdei.cli.output import add_verbosity, print_json, say
from qemu_sdei.cli.ras_numbers import number


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "host-error",
        help="tell a guest of a page of its RAM that has gone bad at the host",
        description="Report a page of guest RAM as bad, as the backend does by itself when the host's kernel reports "
        "one: as a recoverable memory error, by the first source that the guest listens to. No memory is "
        "really poisoned (docs/howto/host-memory-error.md).",
    )
    parser.add_argument("name", metavar="NAME", help="the guest (see `qemu-sdei list`), or a directory of qemu-args")
    parser.add_argument("--address", required=True, metavar="A", help="guest physical address in the page")
    parser.add_argument("--source", metavar="S", help="error source (default: the first that the guest listens to)")
    parser.add_argument("--vcpu", type=int, metavar="N", help="vCPU to notify, from 0 (default: any)")
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    address = number(args.address, "--address")
    from dataclasses import asdict

    from qemu_sdei import rundir
    from qemu_sdei.guest.ras import GuestRas
    from qemu_sdei.guest.ras_access import of_running

    with of_running(rundir.find(args.name), console=False) as access, GuestRas(access) as ras:
        found = ras.host_memory_error(address, source=args.source, vcpu=args.vcpu)
    if args.json:
        print_json({"guest": args.name, **asdict(found)})
    elif not args.quiet:
        where = "" if found.vcpu is None else f", to vCPU {found.vcpu}"
        say(f"page {found.page:#x} is reported as bad by source {found.source!r}{where}")
    return 0
