"""`qemu-sdei status`: what the firmware knows of a running guest."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any, Final

from qemu_sdei.cli.output import add_verbosity, print_json, print_table, say
from qemu_sdei.errors import ProtocolError

_MAX_COLUMNS: Final = 8
"""vCPUs up to which call counts are shown one by one."""
_COUNTS: Final = ("accepted", "merged", "dropped", "delivered")


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "status",
        help="show vCPUs, events and call counts of a running guest",
        description="Show per vCPU power state, SDEI mask and running handlers; per event what is registered, enabled, "
        "running and pending (with -v also what is not registered), and what became of its triggers; and how "
        "often each firmware call was made.",
    )
    parser.add_argument("name", metavar="NAME", help="the guest (see `qemu-sdei list`), or a directory of qemu-args")
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir
    from qemu_sdei.guest.control_client import ControlClient

    guest = rundir.find(args.name)
    with ControlClient(guest.control, identity=guest.identity) as client:
        client.hello()
        status = client.status()
    if args.json:
        print_json(status)
        return 0
    try:
        _show(status, args.verbose > 0)
    except (KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"the backend's status is not of the protocol's form ({error!r})") from None
    return 0


def _show(status: dict[str, Any], everything: bool) -> None:
    counts = status.get("counts", {})
    what = ", ".join(f"{value} {name}" for name, value in counts.items())
    kernels = status.get("kernels", 0)
    kernel = f", kernel {kernels}" if kernels > 1 else ""
    say(f"guest {status['name']!r}, boot {status['epoch']}{kernel}: {what}", "")
    pes = status["pes"]
    print_table(
        "vCPUs",
        ["vCPU", "affinity", "power", "SDEI", "running", "calls"],
        (
            [
                pe["pe"],
                f"{pe['affinity']:#x}",
                pe["power"],
                "masked" if pe["masked"] else "unmasked",
                " < ".join(f"{event:#x}" for event in pe["running"]),
                sum(pe["calls"].values()),
            ]
            for pe in pes
        ),
    )
    for pe in pes:
        entry = pe.get("not_heard_of_since")  # not there: a backend of an older version
        if entry is not None:
            print(f"vCPU {pe['pe']} was started at {entry:#x} and has made no call since\n")
    rows = list(_event_rows(status["events"], everything))
    if rows:
        print_table("Events", ["event", "name", "type", "priority", "vCPU", "state"], rows)
    triggers = list(_trigger_rows(status["events"]))
    if triggers:
        print_table("Triggers", ["event", "vCPU", *_COUNTS, "pending"], triggers)
    hidden = len(status["events"]) - len({row[0] for row in rows})
    if hidden:
        say(f"{hidden} events are registered nowhere (-v shows them)", "")
    names = sorted({name for pe in pes for name in pe["calls"]})
    split = len(pes) <= _MAX_COLUMNS
    print_table(
        "Calls",
        ["function", "total", *(f"vCPU {pe['pe']}" for pe in pes if split)],
        (
            [
                name,
                sum(pe["calls"].get(name, 0) for pe in pes),
                *(pe["calls"].get(name, 0) for pe in pes if split),
            ]
            for name in names
        ),
    )


def _event_rows(events: Iterable[dict[str, Any]], everything: bool) -> Iterator[list[object]]:
    for event in events:
        for instance in event["instances"]:
            states = [name for name in ("registered", "enabled", "running", "pending") if instance[name]]
            if not states and not everything:
                continue
            where = instance.get("pe")
            yield [
                f"{event['event']:#x}",
                event["name"],
                event["type"],
                event["priority"],
                "any" if where is None else where,
                ", ".join(states) or "-",
            ]


def _trigger_rows(events: Iterable[dict[str, Any]]) -> Iterator[list[object]]:
    """Of each event that had any: accepted is the sum of what follows."""
    for event in events:
        for instance in event["instances"]:
            counts = instance.get("triggers", {})  # not there: a backend of an older version
            if counts.get("accepted"):
                where = "any" if instance["pe"] is None else instance["pe"]
                yield [f"{event['event']:#x}", where, *(counts[name] for name in _COUNTS), int(instance["pending"])]
