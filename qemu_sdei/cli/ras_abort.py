"""`qemu-sdei ras abort`: have a vCPU take a synchronous external abort that no error record explains."""

from __future__ import annotations

import argparse
from typing import Any

from qemu_sdei.cli.guest_name import check_vcpu
from qemu_sdei.cli.output import add_verbosity, print_json, say
from qemu_sdei.cli.ras_numbers import number
from qemu_sdei.errors import UsageError


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "abort",
        help="have a vCPU take a synchronous external abort that no record explains",
        description="Make a vCPU of a running guest take a synchronous external abort, as soon as it runs at EL0. "
        "There is no error record for it; use `ras inject --source` with a source of notification SEA "
        "for that. Linux sends a SIGBUS to the interrupted process. With --kernel the abort may hit the "
        "kernel, which then panics.",
    )
    parser.add_argument("name", metavar="NAME", help="the guest (see `qemu-sdei list`), or a directory of qemu-args")
    parser.add_argument("--vcpu", type=int, metavar="N", help="vCPU, from 0 (default: the first that can take it)")
    parser.add_argument("--address", metavar="A", help="virtual address in FAR (default: none, FnV is set)")
    parser.add_argument("--fetch", action="store_true", help="abort an instruction fetch, not a data access")
    parser.add_argument("--kernel", action="store_true", help="also abort the kernel, where ELR and SPSR are free")
    parser.add_argument(
        "--timeout", type=int, default=10, metavar="S", help="seconds to wait for a suitable moment (default: 10)"
    )
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    address = None if args.address is None else number(args.address, "--address")
    if not 0 < args.timeout <= 3600:
        raise UsageError("--timeout is 1 to 3600 seconds")
    check_vcpu(args.vcpu)
    from dataclasses import asdict

    from qemu_sdei import rundir
    from qemu_sdei.guest.ras import GuestRas
    from qemu_sdei.guest.ras_access import of_running

    with of_running(rundir.find(args.name), console=False) as access, GuestRas(access) as ras:
        found = ras.external_abort(args.vcpu, address=address, fetch=args.fetch, kernel=args.kernel, limit=args.timeout)
    if args.json:
        print_json({"guest": args.name, **asdict(found)})
    elif not args.quiet:
        say(f"vCPU {found.vcpu} took the abort at EL{found.el}, PC {found.pc:#x}")
    return 0
