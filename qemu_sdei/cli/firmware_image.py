"""Options that name another firmware: an image that QEMU boots in place of ours."""

from __future__ import annotations

import argparse

from qemu_sdei.errors import UsageError


def add_firmware_image(parser: argparse.ArgumentParser, title: str, what: str) -> None:
    """Add the options, as a group of this title; `what`: the line of help of `--firmware-image`."""
    group = parser.add_argument_group(title)
    group.add_argument("--firmware-image", metavar="FILE", help=what)
    group.add_argument(
        "--firmware-entry",
        metavar="ADDR",
        help="address at which the firmware image enters the guest; we load the guest there (default: "
        "0x40200000). none: the image contains the guest",
    )
    group.add_argument(
        "--qemu-arg",
        action="append",
        default=[],
        metavar="ARG",
        help="words to add to QEMU's command line for the firmware image",
    )


def check_none(args: argparse.Namespace) -> None:
    """Without an image, the options of one are a mistake. Raises `UsageError`."""
    for option, given in (("--firmware-entry", args.firmware_entry), ("--qemu-arg", args.qemu_arg)):
        if given:
            raise UsageError(f"{option} is for another firmware: give --firmware-image with it")


def entry_of(text: str | None) -> int | None:
    """Where an image enters the guest, by --firmware-entry; None: it has the guest in it. Raises `UsageError`."""
    from qemu_sdei.conformance.image import ENTRY

    if text is None:
        return ENTRY
    if text == "none":
        return None
    try:
        return int(text[:20], 0)
    except ValueError:
        raise UsageError(f"--firmware-entry {text!r}: want an address, such as {ENTRY:#x}, or none") from None
