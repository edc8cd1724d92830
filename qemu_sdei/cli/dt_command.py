"""`qemu-sdei dt`: the device-tree nodes that announce the firmware, alone or merged into a tree."""

from __future__ import annotations

import argparse
from typing import Any, Final

from qemu_sdei.cli.files import add_output, read_file, write_output
from qemu_sdei.cli.output import add_verbosity, say
from qemu_sdei.errors import UsageError

_ALONE: Final = ("dtso", "dtbo", "dts")
_MERGED: Final = ("dtb", "dts")


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "dt",
        help="print the firmware's device-tree nodes, or merge them into a DTB",
        description="Print /firmware/sdei and /psci as an overlay; with --dtb, write that tree with the nodes in it. "
        "A tree that has them already comes out as it is.",
    )
    parser.add_argument("--dtb", metavar="FILE", help="merge into this blob (- is standard input)")
    parser.add_argument(
        "--format",
        choices=("dtso", "dtbo", "dts", "dtb"),
        help="dtso, dtbo: an overlay (default: dtso); with --dtb: dtb (default) or dts",
    )
    parser.add_argument("--method", choices=("smc", "hvc"), default="smc", help="conduit of the calls (default: smc)")
    parser.add_argument("--no-sdei", action="store_true", help="leave out /firmware/sdei")
    parser.add_argument("--no-psci", action="store_true", help="leave out /psci and the CPUs' enable-method")
    parser.add_argument(
        "--smp", type=int, metavar="N", help="set enable-method in the overlay too, on N CPUs called as QEMU calls them"
    )
    add_output(parser, "file to write (default: standard output)")
    add_verbosity(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from acpi import DtError, dt, dts, fdt

    wanted = args.format or ("dtso" if args.dtb is None else "dtb")
    if args.no_sdei and args.no_psci:
        raise UsageError("--no-sdei and --no-psci leave nothing to add")
    if args.dtb is None:
        if wanted not in _ALONE:
            raise UsageError(f"--format {wanted} is a whole tree: give the one to merge into with --dtb FILE")
        root = _nodes(args)
        if wanted == "dtbo":
            data = fdt.flatten(dts.overlay_tree(root))
        else:
            data = (dts.overlay(root) if wanted == "dtso" else dts.source(fdt.Tree(root))).encode()
    else:
        if wanted not in _MERGED:
            raise UsageError(f"--format {wanted} is an overlay, which merges into any tree: leave out --dtb")
        if args.smp is not None:
            raise UsageError("--smp is for an overlay: the tree of --dtb has its own CPUs")
        blob = read_file(args.dtb, "device tree")
        try:
            if blob.lstrip()[:8] == b"/dts-v1/":
                raise UsageError(f"{args.dtb} is source: compile it first (dtc -I dts -O dtb -o OUT.dtb {args.dtb})")
            data = dt.merge(blob, conduit=args.method, sdei=not args.no_sdei, psci=not args.no_psci)
            if not args.quiet and data == blob[: len(data)]:
                say(f"qemu-sdei: {args.dtb} has the nodes already: nothing changed", error=True)
            if wanted == "dts":
                data = dts.source(fdt.parse(data)).encode()
        except DtError as error:
            raise UsageError(f"{args.dtb}: {error}") from None
    what = "an overlay blob" if wanted == "dtbo" else "a device-tree blob"
    write_output(data, args.output, force=args.force, binary=wanted in ("dtb", "dtbo"), what=what)
    return 0


def _nodes(args: argparse.Namespace) -> Any:
    from acpi import dt, fdt
    from qemu_sdei.config import MAX_CPUS

    root = fdt.Node("")
    if args.smp is not None and not args.no_psci:
        if not 1 <= args.smp <= MAX_CPUS:
            raise UsageError(f"{args.smp} CPUs are not possible: give 1 to {MAX_CPUS}")
        cpus = root.ensure("cpus")
        for number in range(args.smp):
            cpus.ensure(f"cpu@{number}").set_text("enable-method", "psci")
    dt.announce(root, conduit=args.method, sdei=not args.no_sdei, psci=not args.no_psci)
    return root
