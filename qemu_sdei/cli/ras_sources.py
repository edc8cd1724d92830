"""`qemu-sdei ras sources`: the error sources of a guest and their state."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.output import add_verbosity, print_json, print_table, say

if TYPE_CHECKING:
    from qemu_sdei.guest.ras_refusals import SourceState


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "sources",
        help="show a guest's error sources and their state",
        description="Show the error sources of a running guest: how each one notifies the guest, the size of its "
        "status block, whether the last report was read and acknowledged, and whether a new report is "
        "possible now. -v adds the addresses in guest RAM.",
    )
    add_guest(parser, "name", directory=True)
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir
    from qemu_sdei.guest.ras import GuestRas
    from qemu_sdei.guest.ras_access import of_running

    guest = rundir.find(args.name)
    with of_running(guest, console=False) as access, GuestRas(access) as ras:
        sources = ras.sources()
    if args.json:
        print_json({"guest": guest.name, "sources": [each.document for each in sources]})
        return 0
    if not sources:
        say(f"guest {guest.name!r} has no error sources: start it with --ras")
        return 0
    print_table(
        "",
        ["source", "id", "type", "notification", "block", "state", "ready"],
        [
            [each.name, each.id, each.type, _notification(each), each.block, each.state, "yes" if each.ready else "no"]
            for each in sources
        ],
    )
    for each in sources:
        if each.reason is not None:
            say(f"{each.name}: {each.reason}")
        if args.verbose:
            say(f"{each.name}: " + ", ".join(_places(each)))
    return 0


def _notification(source: SourceState) -> str:
    if isinstance(source.event, int):
        return f"{source.notify} {source.event:#x}"
    if isinstance(source.interrupt, int):
        return f"{source.notify} {source.interrupt}"
    poll = source.document.get("poll_ms")
    return f"{source.notify}, {poll} ms" if source.notify == "polled" and isinstance(poll, int) else source.notify


def _places(source: SourceState) -> list[str]:
    names = {"address": "block", "address_register": "address register", "read_ack": "read-ack register"}
    found = []
    for key, words in names.items():
        value = source.document.get(key)
        if isinstance(value, int):
            found.append(f"{words} at {value:#x}")
    return found
