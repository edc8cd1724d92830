"""NAME, which says the guest that a command is for: where one guest runs it may be left out."""

from __future__ import annotations

import argparse


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
