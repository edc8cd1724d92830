"""`qemu-sdei list`: the guests of this user that run now."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from qemu_sdei.cli.output import add_verbosity, print_json, print_table, say
from qemu_sdei.config import GuestConfig, shown_ram
from qemu_sdei.errors import ProtocolError, SdeiError

_TIMEOUT: Final = 1.0


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "list",
        description="List your running guests, and remove what killed guests have left. A guest whose owner was "
        "killed runs on: `attach` takes it over, `stop` ends it. -q prints only names. `ps` and `ls` are "
        "the same command.",
    )
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir

    guests = [_describe(guest) for guest in rundir.running()]
    if args.json:
        print_json({"guests": guests})
    elif args.quiet:
        say(*(g["name"] for g in guests))
    elif guests:
        print_table(
            "",
            ["name", "owner", "vCPUs", "memory", "cpu", "boots", "backend", "what"],
            (
                [
                    g["name"],
                    g["pid"] if g["owned"] else "none",
                    g["vcpus"],
                    g["memory"],
                    g["cpu"],
                    _boots(g["epoch"], g["kernels"]),
                    g["backend_pid"] or "-",
                    _kernel(g["kernel"]),
                ]
                for g in guests
            ),
        )
        without = [g["name"] for g in guests if not g["owned"]]
        if without:
            say(f"without an owner: `qemu-sdei attach {without[0]}` takes it over, `stop {without[0]}` ends it")
        for guest in guests:
            if rundir.deserted(Path(guest["directory"])):
                say(f"{guest['name']} has no backend either: its next call waits until it is attached")
            if guest["stopped"]:
                say(f"{guest['name']} does not answer: {guest['stopped']}")
    else:
        say("no guest is running")
    return 0


def _kernel(path: str | None) -> str:
    """Its name without the directory: `--json` has all of it, and a row is to fit into 80 columns."""
    return path.rpartition("/")[2] if path else "starts, or waits for a guest to arrive"


def _boots(epoch: int | None, kernels: int | None) -> str | int | None:
    """Resets, and how many kernels there were since the last one where one has started another."""
    return f"{epoch}, kernel {kernels}" if isinstance(kernels, int) and kernels > 1 else epoch


def _describe(guest: Any) -> dict[str, Any]:
    from qemu_sdei import rundir, stopped
    from qemu_sdei.guest.control_client import ControlClient

    facts: dict[str, Any] = {
        "name": guest.name,
        "pid": guest.pid,
        "owned": guest.owned,
        "directory": str(guest.path),
        "vcpus": None,
        "memory": None,
        "cpu": None,
        "kernel": None,
        "epoch": None,
        "kernels": None,
        "backend_pid": None,
        "stopped": stopped.of_guest(guest.path) or None,
    }
    try:
        config = GuestConfig.from_json((guest.path / rundir.CONFIG).read_bytes())
        facts |= {"vcpus": config.nr_cpus, "memory": shown_ram(config.ram_size), "cpu": config.cpu}
        kernel = config.boot.get("kernel")
        facts["kernel"] = "none" if kernel == "" else kernel  # as --kernel says it
        known = guest.identity
        with ControlClient(guest.control, identity=known, timeout=_TIMEOUT, connect_timeout=_TIMEOUT) as client:
            hello = client.hello()
        facts |= {"epoch": hello.get("epoch"), "kernels": hello.get("kernels"), "backend_pid": hello.get("pid")}
    except (OSError, ProtocolError, SdeiError):
        pass  # it is just starting or ending; what is known is shown
    return facts
