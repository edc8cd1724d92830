"""`qemu-sdei regs`: SDEI state of a vCPU as KVM's pseudo firmware registers."""

from __future__ import annotations

import argparse
from typing import Any

from qemu_sdei.cli.output import add_verbosity, print_json, print_table
from qemu_sdei.errors import UsageError


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "regs",
        help="SDEI state as KVM's pseudo firmware registers",
        description="Print the SDEI state of a vCPU of a running guest as the pseudo firmware registers of KVM's SDEI "
        "series (v7), or write it. A value is one or more 64-bit words in memory order, separated by commas; zeros at "
        "the end may be left out. All that is set is written at once, and refused if it cannot be.",
    )
    parser.add_argument("guest", metavar="NAME", help="name of the guest (see `qemu-sdei list`)")
    parser.add_argument("--vcpu", type=int, default=0, metavar="N", help="which vCPU (default: 0)")
    parser.add_argument("--get", action="append", default=[], metavar="ID", help="only this one; id or name")
    parser.add_argument("--set", action="append", default=[], metavar="ID=VALUE", help="write a register first")
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir
    from qemu_sdei.backend.control.kvm_regs import BY_ID
    from qemu_sdei.guest.control_client import ControlClient

    wanted = [_id(text) for text in args.get] or list(BY_ID)
    values = dict(_assignment(text) for text in args.set)
    guest = rundir.find(args.guest)
    with ControlClient(guest.control, identity=guest.identity) as client:
        found = client.registers(args.vcpu, values)
    if args.json:
        print_json({BY_ID[number].name: {"id": f"{number:#x}", "words": found[number]} for number in wanted})
    else:
        rows = [[BY_ID[number].name, f"{number:#x}", _text(found[number])] for number in wanted]
        print_table("", ["register", "id", "value"], rows)
    return 0


def _id(text: str) -> int:
    from qemu_sdei.backend.control.kvm_regs import BY_ID, REGISTERS

    for register in REGISTERS:
        if text.upper() in (register.name, register.name.removeprefix("SDEI_")):
            return register.id
    number = int(text, 0) if _is_number(text) else -1
    if number not in BY_ID:
        raise UsageError(f"there is no register {text}; there are {', '.join(r.name for r in REGISTERS)}")
    return number


def _assignment(text: str) -> tuple[int, list[int]]:
    from qemu_sdei.backend.control.kvm_regs import BY_ID

    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: write ID=VALUE")
    number = _id(name)
    words = [_number(word) for word in value.split(",")]
    return number, words + [0] * (BY_ID[number].words - len(words))


def _is_number(text: str) -> bool:
    try:
        int(text, 0)
    except ValueError:
        return False
    return True


def _number(text: str) -> int:
    if not _is_number(text):
        raise UsageError(f"{text!r} is not a number")
    return int(text, 0)


def _text(words: list[int]) -> str:
    words = list(words)
    while len(words) > 1 and not words[-1]:
        words.pop()
    return ",".join(f"{word:#x}" for word in words)
