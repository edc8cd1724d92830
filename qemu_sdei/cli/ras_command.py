"""`qemu-sdei ras`: hardware errors for a guest. What its subcommands do is in `ras_NAME.py`."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any, Final

COMMANDS: Final = (
    "inject",
    "sources",
    "host-error",
    "abort",
    "fuzz",
    "victim",
)
"""Each is a module `ras_NAME`, its hyphens underscores, with `register(subparsers)`; help has them in this order."""


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "ras",
        description="Report hardware errors (CPER records) to a running guest by its error sources, as firmware "
        "does, and show how its kernel reacts.",
    )
    commands = parser.add_subparsers(dest="ras_command", metavar="COMMAND", required=True, prog=parser.prog)
    for name in COMMANDS:
        import_module(f"qemu_sdei.cli.ras_{name.replace('-', '_')}").register(commands)
