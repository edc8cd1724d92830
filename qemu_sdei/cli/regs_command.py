"""`qemu-sdei regs`: SDEI state of a vCPU, and the selection of services, as KVM's pseudo firmware registers."""

from __future__ import annotations

import argparse
from typing import Any

from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.output import add_verbosity, print_json, print_table
from qemu_sdei.errors import UsageError


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "regs",
        description="Print or write the SDEI state of a vCPU as the pseudo firmware registers of KVM's SDEI series "
        "(v7), and KVM's bitmaps of the services that the guest finds. A value is one or more 64-bit "
        "words in memory order, separated by commas; trailing zeros may be left out. Several --set are "
        "written together, or all refused. A bitmap can be written only before the guest runs (`run "
        "--paused`).",
    )
    add_guest(parser)
    parser.add_argument("--vcpu", type=int, default=0, metavar="N", help="which vCPU (default: 0)")
    parser.add_argument("--get", action="append", default=[], metavar="ID", help="print only this register: id or name")
    parser.add_argument(
        "--set", action="append", default=[], metavar="ID=VALUE", help="write this register; may be repeated"
    )
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir
    from qemu_sdei.guest.control_client import ControlClient

    wanted = [_find(text) for text in args.get]
    values = dict(_assignment(text) for text in args.set)
    guest = rundir.find(args.guest)
    with ControlClient(guest.control, identity=guest.identity) as client:
        found = client.registers(args.vcpu, values)
    shown = [each for each in wanted or known() if each.id in found]
    missing = [each.name for each in wanted if each.id not in found]
    if missing:
        raise UsageError(f"{guest.name} finds no SDEI, and has no {', '.join(missing)}")
    if args.json:
        print_json({each.name: {"id": f"{each.id:#x}", "words": found[each.id]} for each in shown})
    else:
        rows = [[each.name, f"{each.id:#x}", _text(found[each.id]) + _meaning(each, found[each.id])] for each in shown]
        print_table("", ["register", "id", "value"], rows)
    return 0


def known() -> list[Any]:
    """All registers: of SDEI, and those by which services are selected. Each has an id and a name."""
    from qemu_sdei.backend.control.kvm_regs import REGISTERS
    from qemu_sdei.smccc import selection

    return [*REGISTERS, *selection.REGISTERS]


def _find(text: str) -> Any:
    for register in known():
        names = (register.name, register.name.removeprefix("SDEI_"), f"KVM_REG_ARM_{register.name}")
        if text.upper() in names or (_is_number(text) and int(text, 0) == register.id):
            return register
    raise UsageError(f"there is no register {text}; there are {', '.join(each.name for each in known())}")


def _assignment(text: str) -> tuple[int, list[int]]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: write ID=VALUE")
    register = _find(name)
    words = [_number(word) for word in value.split(",")]
    return register.id, words + [0] * (getattr(register, "words", 1) - len(words))


def _meaning(register: Any, words: list[int]) -> str:
    """What the bits of a bitmap are called."""
    features = getattr(register, "features", ())
    names = [feature.word for feature in features if words[0] >> feature.bit & 1]
    return f" ({', '.join(names)})" if names else ""


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
