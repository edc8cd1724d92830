"""`qemu-sdei selftest`: the embedded bare-metal guest goes through SDEI's calls on 2 vCPUs; needs nothing but QEMU."""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from typing import Any, Final

from qemu_sdei.cli.machine_arguments import add_machine_options, machine_options, say_profile
from qemu_sdei.cli.output import Progress, add_verbosity, print_json
from qemu_sdei.cli.report_option import RunReport, add_report_option
from qemu_sdei.cli.screen import raw
from qemu_sdei.errors import GuestTimeoutError, LostGuestError, UsageError

_RESULT: Final = re.compile(r"^\s*Result: (\S.*)\n", re.MULTILINE)


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "selftest",
        description="Run the embedded bare-metal guest on the Python firmware and show its output. Exit code 0 if it "
        "ends with `Result: OK`, else 1.",
    )
    add_machine_options(parser)
    parser.add_argument("--append", default="", metavar="WORDS", help="the guest's own options")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="end after S seconds, as a failure (default: 60)"
    )
    add_report_option(parser)
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from dataclasses import replace

    if not 0 < args.timeout < math.inf:
        raise UsageError("--timeout must be more than 0 seconds")
    options = replace(machine_options(args), kernel="builtin:selftest", append=args.append, die_with_owner=True)
    say_profile(options)
    from qemu_sdei.guest.guest import Guest

    with Progress(args.quiet) as progress, RunReport(args.report, "SDEI selftest") as report:
        kept = report.next_guest()
        guest = Guest(options if kept is None else kept.options(options), progress=progress)
        try:
            guest.start()
            return _follow(guest, args, progress)
        finally:
            if kept is not None:
                kept.take_console(guest)
            guest.close()


def _follow(guest: Any, args: argparse.Namespace, progress: Progress) -> int:
    deadline = time.monotonic() + args.timeout
    transcript = ""
    for text in guest.follow():
        if text:
            progress.done()
            transcript += text
            if not args.json:
                raw(sys.stdout).write(text)
                sys.stdout.flush()
        if match := _RESULT.search(transcript):
            passed = match[1].strip() == "OK"
            if args.json:
                print_json({"ok": passed, "transcript": transcript.splitlines()})
            return 0 if passed else 1
        if time.monotonic() > deadline:
            raise GuestTimeoutError(
                f"the selftest did not end within {args.timeout:g} s", console=guest.console_text.last_lines()
            )
    raise LostGuestError("the selftest ended without a result", console=guest.console_text.last_lines())
