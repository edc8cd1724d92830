"""`qemu-sdei snapshot`: snapshots of a running guest in a disk image."""

from __future__ import annotations

import argparse
import time
from typing import Any

from qemu_sdei.cli.move_progress import Shown
from qemu_sdei.cli.output import Progress, add_verbosity, print_json, print_table, say
from qemu_sdei.errors import UsageError

_PATIENCE = 360.0


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "snapshot",
        description="Save the running guest NAME, with RAM, devices, disks and firmware state, as snapshot TAG in a "
        "qcow2 image (`run --snapshots FILE`, or a disk in that format), or load snapshot TAG into the "
        "guest. The guest is paused meanwhile, and then runs on.",
    )
    parser.add_argument("guest", metavar="NAME", help="name of the guest (see `qemu-sdei list`)")
    parser.add_argument("do", choices=("save", "load", "list", "delete"), metavar="DO", help="save, load, list, delete")
    parser.add_argument("tag", metavar="TAG", nargs="?", help="name of the snapshot")
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir
    from qemu_sdei.guest.supervisor_client import ask
    from qemu_sdei.saving.snapshots import check_tag

    if (args.tag is None) is not (args.do == "list"):
        raise UsageError(f"snapshot {args.do} takes {'no TAG' if args.do == 'list' else 'a TAG'}")
    if args.tag is not None:
        check_tag(args.tag)
    guest = rundir.find(args.guest)
    with Progress(args.quiet) as progress:
        request = {"do": args.do, "tag": args.tag}
        result = ask(guest.owner, "snapshot", request, Shown(progress), identity=guest.identity, patience=_PATIENCE)
    if args.json:
        print_json(result)
    elif args.do == "list":
        _print(result["snapshots"])
    elif not args.quiet:
        done = {"save": "is saved as", "load": "is back at", "delete": "has no more"}[args.do]
        size = f": {result['snapshot']['bytes'] / (1 << 20):.1f} MiB" if args.do == "save" else ""
        say(f"guest {guest.name!r} {done} snapshot {args.tag!r}{size}")
    return 0


def _print(found: list[dict[str, Any]]) -> None:
    if not found:
        say("no snapshots")
        return
    rows = [
        [
            entry["tag"],
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["time"])),
            f"{entry['bytes'] / (1 << 20):.1f} MiB",
            f"{entry['guest_ns'] / 1e9:.1f} s",
        ]
        for entry in found
    ]
    print_table("", ["tag", "saved", "size", "guest had run"], rows)
