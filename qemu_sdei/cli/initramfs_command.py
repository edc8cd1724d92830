"""`qemu-sdei initramfs`: our own initramfs as a file, to look into it, or to boot it elsewhere."""

from __future__ import annotations

import argparse
from typing import Any, Final

from qemu_sdei.cli.files import add_output, write_output
from qemu_sdei.cli.guest_arguments import add_guest_options, guest_options
from qemu_sdei.cli.machine_arguments import add_machine_options
from qemu_sdei.cli.output import Progress, add_verbosity
from qemu_sdei.errors import UsageError

_NONCE: Final = "exported"
"""By which init marks its lines; the guests that we run have one of their own each."""


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "initramfs",
        usage="%(prog)s export [options] -o FILE [-- COMMAND ...]",
        description="Write the initramfs that `run` would boot with these options: a newc archive, compressed if the "
        "name of FILE ends in .gz. With a COMMAND it runs that and powers off; without one it has a shell.",
    )
    parser.add_argument("action", choices=("export",), help="write it")
    add_output(parser, "the file to write (default: standard output)")
    add_guest_options(parser)
    add_machine_options(parser)
    add_verbosity(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    import gzip
    from dataclasses import replace

    from qemu_sdei.vm.plan import prepare

    if args.guest_command == []:
        raise UsageError("there is no command after --: give one, or leave -- out")
    options = guest_options(args)
    if options.kdump is not False:
        raise UsageError("the initramfs of --kdump belongs to one guest: leave out --kdump")
    with Progress(args.quiet) as progress:
        plan = prepare(replace(options, channel=True), progress)
        if plan.busybox is None:
            reason = "leave out --initrd" if options.initrd is not None else "this guest boots none"
            raise UsageError(f"only our own initramfs can be exported: {reason}")
        data = plan.initramfs(_NONCE)
    if (args.output or "").endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    write_output(data, args.output, force=args.force, binary=True, what="an initramfs")
    return 0
