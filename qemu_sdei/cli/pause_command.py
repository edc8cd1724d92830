"""`qemu-sdei pause` and `qemu-sdei resume`: stop the vCPUs of a running guest, and have them run again."""

from __future__ import annotations

import argparse
from typing import Any

from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.output import add_verbosity, print_json
from qemu_sdei.errors import UsageError

_COMMANDS = (
    (
        "pause",
        "Pause the vCPUs of a running guest. Time does not pass in the guest meanwhile. Its firmware "
        "still answers `status` and `regs`, and injected events wait. `qemu-sdei resume` ends the pause.",
    ),
    (
        "resume",
        "Resume the vCPUs of a guest that was paused, or that was started by `run --paused`.",
    ),
)


def register(subparsers: Any) -> None:
    """Add both subcommands."""
    for name, description in _COMMANDS:
        parser: argparse.ArgumentParser = subparsers.add_parser(name, description=description)
        add_guest(parser, "name")
        add_verbosity(parser, json_output=True, messages=True)
        parser.set_defaults(run=run, pause=name == "pause")


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir
    from qemu_sdei.guest import machine_control

    guest = rundir.find(args.name)
    if guest.path.parent != rundir.base_path():
        raise UsageError(f"{guest.path} is of a QEMU of your own: pause and resume that by its monitor")
    owner = guest.path / rundir.OWNER
    state = (machine_control.pause if args.pause else machine_control.resume)(owner, guest.identity)
    if args.json:
        print_json({"guest": guest.name, "vcpus": state})
    elif not args.quiet:
        print(f"guest {guest.name!r} is {state}")
    return 0
