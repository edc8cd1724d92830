"""`qemu-sdei dt`: the device-tree nodes that announce the firmware, alone or merged into a tree."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.files import add_output, read_file, write_output
from qemu_sdei.cli.output import add_verbosity, say
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.acpi.fdt import Node

_ALONE: Final = ("dtso", "dtbo", "dts")
_WARNINGS: Final = 10
"""That are shown; a tree can have one for each of its CPUs."""


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "dt",
        description="Print the nodes /firmware/sdei and /psci as an overlay. With --dtb, write that tree with the "
        "nodes merged in. Existing nodes are found by their `compatible` anywhere in the tree, and "
        "corrected. A tree with correct nodes is not changed.",
    )
    parser.add_argument("--dtb", metavar="FILE", help="merge into this device tree blob (- is standard input)")
    parser.add_argument(
        "--format",
        choices=("dtso", "dtbo", "dts", "dtb"),
        help="dtso, dtbo: an overlay (default: dtso), with --dtb for that tree; dtb (default with --dtb), dts: a tree",
    )
    parser.add_argument("--method", choices=("smc", "hvc"), default="smc", help="conduit of the calls (default: smc)")
    parser.add_argument("--no-sdei", action="store_true", help="leave out /firmware/sdei")
    parser.add_argument("--no-psci", action="store_true", help="leave out /psci and the CPUs' enable-method")
    parser.add_argument(
        "--smp",
        type=int,
        metavar="N",
        help="also set enable-method in the overlay, on N CPUs with QEMU's names cpu@0 to cpu@N-1. For other "
        "machines give the tree: --dtb FILE --format dtso",
    )
    add_output(parser, "file to write (default: standard output)")
    add_verbosity(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    wanted = args.format or ("dtso" if args.dtb is None else "dtb")
    if args.no_sdei and args.no_psci:
        raise UsageError("--no-sdei and --no-psci leave nothing to add")
    data = _alone(args, wanted) if args.dtb is None else _for_tree(args, wanted)
    what = "an overlay blob" if wanted == "dtbo" else "a device-tree blob"
    write_output(data, args.output, force=args.force, binary=wanted in ("dtb", "dtbo"), what=what)
    return 0


def _alone(args: argparse.Namespace, wanted: str) -> bytes:
    from qemu_sdei.acpi import dts, fdt

    if wanted not in _ALONE:
        raise UsageError(f"--format {wanted} is a whole tree: give the one to merge into with --dtb FILE")
    root = _nodes(args)
    return dts.source(fdt.Tree(root)).encode() if wanted == "dts" else _overlay(root, wanted)


def _overlay(root: Node, wanted: str) -> bytes:
    from qemu_sdei.acpi import dts, fdt

    return fdt.flatten(dts.overlay_tree(root)) if wanted == "dtbo" else dts.overlay(root).encode()


def _for_tree(args: argparse.Namespace, wanted: str) -> bytes:
    """The tree of --dtb with the nodes, or an overlay that brings them into it. Says what Linux finds then."""
    from qemu_sdei.acpi import DtError, dt, dt_firmware, dts, fdt

    if args.smp is not None:
        raise UsageError("--smp is for an overlay without a tree: the tree of --dtb has its own CPUs")
    blob = read_file(args.dtb, "device tree")
    switches = {"conduit": args.method, "sdei": not args.no_sdei, "psci": not args.no_psci}
    try:
        if blob.lstrip()[:8] == b"/dts-v1/":
            raise UsageError(f"{args.dtb} is source: compile it first (dtc -I dts -O dtb -o OUT.dtb {args.dtb})")
        data = dt.merge(blob, **switches)
        tree = fdt.parse(data)
        if not args.quiet:
            same = "it has the nodes already, nothing changed; " if data == blob[: len(data)] else ""
            found = dt_firmware.as_linux(tree.root)
            say(f"qemu-sdei: {args.dtb}: {same}Linux finds {found}", error=True)
            for fault in found.faults[:_WARNINGS]:
                say(f"qemu-sdei: warning: {args.dtb}: {fault}", error=True)
            if (more := len(found.faults) - _WARNINGS) > 0:
                say(f"qemu-sdei: warning: {args.dtb}: and {more} more of this kind", error=True)
        if wanted in _ALONE[:2]:
            return _overlay(dt.overlay_for(blob, **switches), wanted)
        return dts.source(tree).encode() if wanted == "dts" else data
    except DtError as error:
        raise UsageError(f"{args.dtb}: {error}") from None


def _nodes(args: argparse.Namespace) -> Node:
    from qemu_sdei.acpi import dt_firmware, fdt
    from qemu_sdei.config import MAX_CPUS

    root = fdt.Node("")
    if args.smp is not None and not args.no_psci:
        if not 1 <= args.smp <= MAX_CPUS:
            raise UsageError(f"{args.smp} CPUs are not possible: give 1 to {MAX_CPUS}")
        cpus = root.ensure("cpus")
        for number in range(args.smp):
            cpus.ensure(f"cpu@{number}").set_text("enable-method", "psci")
    dt_firmware.announce(root, conduit=args.method, sdei=not args.no_sdei, psci=not args.no_psci)
    return root
