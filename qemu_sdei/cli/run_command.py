"""`qemu-sdei run`: boot a guest; run a command in it, or a script beside it, or give its console to the user."""

from __future__ import annotations

import argparse
import contextlib
import math
import shlex
import sys
from types import CodeType
from typing import TYPE_CHECKING, Any

from qemu_sdei.cli.end_explained import explaining
from qemu_sdei.cli.files import read_file
from qemu_sdei.cli.guest_arguments import add_guest_options, guest_options
from qemu_sdei.cli.interact import concluded, in_background, interact, wait_resumed
from qemu_sdei.cli.kdump_run import crash
from qemu_sdei.cli.machine_arguments import add_machine_options, say_profile
from qemu_sdei.cli.output import Progress, add_verbosity, print_data, print_json, say
from qemu_sdei.cli.screen import raw, unscreened
from qemu_sdei.cli.script_errors import shown
from qemu_sdei.cli.streams import OutputError
from qemu_sdei.errors import SdeiError, UsageError
from qemu_sdei.vm.options import BUILTIN

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest
    from qemu_sdei.vm.options import GuestOptions


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        usage="%(prog)s [options] [-- COMMAND ...]",
        description="Boot an arm64 kernel on the Python firmware. With a COMMAND, run it in the guest, print "
        "its output and return its exit status (255: the guest panicked, see --on-panic); without one, connect the "
        "terminal to the guest's console.",
    )
    add_guest_options(parser)
    add_machine_options(parser)
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        help="end with an error if COMMAND has not ended after S seconds, boot included",
    )
    parser.add_argument(
        "--script", metavar="FILE", help="run this Python file on the host, with the running guest as `guest`"
    )
    parser.add_argument("--trace", metavar="FILE", help="write the trace of the whole run to FILE")
    parser.add_argument(
        "--paused",
        action="store_true",
        help="start with paused vCPUs, so that `regs --set` can select services; `qemu-sdei resume` starts them",
    )
    parser.add_argument(
        "-d",
        "--detach",
        action="store_true",
        help="in the background: print the guest's name and return as soon as it answers",
    )
    parser.add_argument("--dry-run", action="store_true", help="print QEMU's command line, start nothing")
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from dataclasses import replace

    options = replace(guest_options(args), trace=args.trace, paused=args.paused)
    if args.guest_command == []:
        raise UsageError("there is no command after --: give one, or leave -- out")
    if args.guest_command is not None and args.script is not None:
        raise UsageError("a command and a --script were both given: give one of them")
    if args.timeout is not None and not 0 < args.timeout < math.inf:
        raise UsageError("--timeout must be more than 0 seconds")
    for option, given in (("--json", args.json and not args.dry_run), ("--timeout", args.timeout is not None)):
        if given and args.guest_command is None:
            raise UsageError(f"{option} needs a command in the guest: give one after --")
    for option, given in (("--script", args.script is not None), ("--kdump", bool(args.kdump)), ("--json", args.json)):
        if args.detach and given:
            raise UsageError(f"{option} needs the terminal that the guest is run from: leave out it, or --detach")
    if not args.kdump:
        # Into the kernel that comes after a panic a command is followed on the console only.
        apart = args.guest_command is not None and not args.detach and not options.goes_on
        options = replace(options, channel=True, apart=apart)
    if args.dry_run:
        return _dry_run(options, args.json)
    say_profile(options)
    script = None if args.script is None else _load_script(args.script)
    # Only now: a wrong option is told without it.
    from qemu_sdei.guest.guest import Guest

    if args.detach:
        return in_background(args, lambda progress: Guest(options, progress=progress))
    with Progress(args.quiet) as progress:
        guest = Guest(options, progress=progress)
        return concluded(guest, lambda: _run(guest, script, args, progress))


def _run(guest: Guest, script: CodeType | None, args: argparse.Namespace, progress: Progress) -> int:
    if script is not None:
        return _run_script(guest, script, args, progress)
    if args.guest_command is not None:
        with explaining(guest):
            return _run_command(guest, args, progress) if not args.kdump else crash(guest, args, progress)
    return interact(guest, args, progress)


def _dry_run(options: GuestOptions, as_json: bool) -> int:
    from qemu_sdei import rundir
    from qemu_sdei.host import given_kernels
    from qemu_sdei.vm import debugger, uefi_boot
    from qemu_sdei.vm.capture_kernel import settled
    from qemu_sdei.vm.devices import devices
    from qemu_sdei.vm.machine_checks import check_machine
    from qemu_sdei.vm.options import FLAT, NO_KERNEL
    from qemu_sdei.vm.plan import check_tables, with_channel
    from qemu_sdei.vm.qemu_command import command_line, fd_wiring

    flat = str(options.kernel).startswith((BUILTIN, FLAT))
    options = settled(with_channel(options, flat), flat)
    check_tables(options, flat)
    uefi_boot.check_options(options, flat=flat)
    uefi_boot.check_drives(options)
    if options.kernel not in (None, NO_KERNEL) and not flat:
        assert options.kernel is not None
        given_kernels.checked(options.kernel)
    qemu, size = check_machine(options)
    monitor = rundir.base_path() / (options.name or "guest") / rundir.MONITOR
    words = command_line(
        str(qemu),
        nr_cpus=options.smp,
        topology=options.topology,
        ram_size=size,
        cpu=options.cpu,
        virtualization=options.has_el2,
        # Which numbers the descriptors will have is known only then.
        wiring=fd_wiring(
            str(monitor),
            ram=3,
            doorbell=4,
            console=5,
            qmp=6,
            helper=7 if options.helper else None,
            channel=range(8, 8 + rundir.EXEC_PORTS) if options.channel else (),
        ),
        reboot=options.command is None,
        extra=[*devices(options).arguments, *debugger.arguments(options.gdb), *options.qemu_args],
    )
    if as_json:
        print_json({"command": words})
    else:
        print_data(shlex.join(words) + "\n")
        if sys.stdout.isatty():
            print(
                "(descriptors from 3 on, RAM and listening sockets, are passed by qemu-sdei; for a QEMU of your own "
                "see `qemu-sdei qemu-args`)"
            )
    return 0


def _run_command(guest: Guest, args: argparse.Namespace, progress: Progress) -> int:
    def output(text: str) -> None:
        progress.done()
        if not args.json:
            raw(sys.stdout).write(text)
            sys.stdout.flush()

    def boot_log(text: str) -> None:
        progress.done()
        raw(sys.stderr).write(text)
        sys.stderr.flush()

    guest.start()
    wait_resumed(guest, progress)
    if not args.verbose:
        progress("booting")
    if guest.options.apart and guest.placement.plan.options.apart:
        from qemu_sdei.cli.run_streams import NoAgentError, run_streams

        with contextlib.suppress(NoAgentError):
            return run_streams(guest, args, progress)
    result = guest.wait_command(output, args.timeout, boot_log=boot_log if args.verbose else None)
    progress.done()
    if args.json:
        print_json({"status": result.status, "output": result.output})
    return result.status


def _load_script(path: str) -> CodeType:
    try:
        return compile(read_file(path, "script"), path, "exec")
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise UsageError(f"script {path}{f', line {line}' if line else ''}: {getattr(error, 'msg', error)}") from None


def _run_script(guest: Guest, script: CodeType, args: argparse.Namespace, progress: Progress) -> int:
    if args.verbose:
        guest.attach(_to_stderr)
    guest.start()
    progress.done()
    namespace = {"__name__": "__main__", "__file__": script.co_filename, "guest": guest}
    try:
        with explaining(guest), unscreened():
            exec(script, namespace)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        say(end.code, error=True)
        return 1
    except (BrokenPipeError, OutputError):
        raise
    except Exception as error:
        say(*shown(error), error=True)
        return error.exit_code if isinstance(error, SdeiError) else 1
    return 0


def _to_stderr(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()
