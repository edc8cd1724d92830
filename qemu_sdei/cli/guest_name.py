"""The guest that a command is for: NAME, which may be left out where one guest runs; the number of one of its vCPUs."""

from __future__ import annotations

import argparse

from qemu_sdei.errors import UsageError


def add_guest(parser: argparse.ArgumentParser, dest: str = "guest", *, directory: bool = False) -> None:
    """Add the argument NAME.

    Args:
        parser: of the command.
        dest: attribute that gets it; None where it was left out, which `rundir.find` takes.
        directory: it may be a directory of qemu-args too.
    """
    more = ", or a directory of qemu-args" if directory else ""
    text = f"the guest (see `qemu-sdei list`){more} (default: the only running guest)"
    parser.add_argument(dest, metavar="NAME", nargs="?", help=text)


def check_vcpu(number: int | None) -> None:
    """Check that `number` can be a vCPU's, whatever guest it is; None: none was named. Raises `UsageError`."""
    if number is not None and number < 0:
        raise UsageError(f"vCPU {number} does not exist: they are counted from 0")
