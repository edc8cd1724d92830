"""`qemu-sdei explain`: what is the matter with a running guest."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.guest_name import add_guest, check_vcpu
from qemu_sdei.cli.output import add_verbosity, print_json, say
from qemu_sdei.cli.symbol_options import add_symbol_options, symbols_of
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.explain.explanation import Explanation

_WIDEST: Final = 100
_NARROWEST: Final = 40


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "explain",
        description="Find out why a guest hangs. Show the state of each event on each vCPU, and since when; why each "
        "pending event is not delivered, and what the kernel must do next; calls that were refused, and "
        "by which rule; and where each vCPU is. Known faults are named. It also works for a guest whose "
        "backend or QEMU does not answer. Exit code 1 if a reason to hang was found, else 0.",
    )
    add_guest(parser, "name", directory=True)
    parser.add_argument("--vcpu", type=int, metavar="N", help="show only vCPU N, with all its registers")
    add_symbol_options(parser)
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    check_vcpu(args.vcpu)
    from qemu_sdei import rundir
    from qemu_sdei.explain.explanation import explain
    from qemu_sdei.guest.picture_taking import take_picture, with_names

    guest = rundir.find(args.name)
    symbolizer = symbols_of(args, guest)
    picture = take_picture(guest, vcpus=None if args.vcpu is None else (args.vcpu,))
    if args.vcpu is not None and picture.vcpus and args.vcpu >= len(picture.vcpus):
        raise UsageError(f"there is no vCPU {args.vcpu}: this guest has {len(picture.vcpus)}")
    if symbolizer is not None:
        picture = with_names(picture, symbolizer)
    explanation = explain(picture)
    if args.json:
        print_json(explanation.document())
    else:
        _show(explanation, args)
    return int(explanation.wedged)


def _show(explanation: Explanation, args: argparse.Namespace) -> None:
    from qemu_sdei.explain.lines import lines

    width = min(max(_columns(), _NARROWEST), _WIDEST)
    say(*lines(explanation, width=width, registers=args.verbose > 0 or args.vcpu is not None, vcpu=args.vcpu))


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or _WIDEST
    except (OSError, ValueError):
        return _WIDEST
