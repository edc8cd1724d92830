"""`qemu-sdei doctor`: what of the environment is there, what is missing, what to do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qemu_sdei.cli.output import Progress, add_verbosity, print_json, print_table, say
from qemu_sdei.printable import message_lines

if TYPE_CHECKING:
    from qemu_sdei.host.environment import Finding


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor",
        description="Check this machine: programs and files that guests, tests and builds need, write access to the "
        "directories that guests use, and a small guest that is run. Exit code 0 if guests can run, else "
        "1.",
    )
    parser.add_argument("--qemu", metavar="FILE", help="qemu-system-aarch64 to check (default: the one on PATH)")
    parser.add_argument("--no-guest", action="store_true", help="do not run a guest")
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei.cli import doctor_trials
    from qemu_sdei.host.environment import check

    qemu = None if args.qemu is None else Path(args.qemu)
    findings = [*check(qemu), *doctor_trials.places()]
    good = all(finding.ok for finding in findings)
    if good and not args.no_guest:
        with Progress(args.quiet or args.json) as progress:
            progress("trying a guest")
            findings.append(doctor_trials.guest(qemu))
        good = findings[-1].ok
    if args.json:
        print_json(
            {
                "ok": good,
                "findings": [
                    {"name": f.name, "found": f.found, "needed": f.needed, "ok": f.ok, "why": f.why, "remedy": f.remedy}
                    for f in findings
                ],
            }
        )
        return 0 if good else 1
    print_table(
        "",
        ["what", "state", "found"],
        (
            [
                finding.name,
                _state(finding),
                finding.found or "",
            ]
            for finding in findings
        ),
    )
    for finding in findings:
        if finding.found is None:
            need = "needed" if finding.needed else "optional"
            say(*message_lines(f"{finding.name} ({need}: {finding.why}): {finding.remedy}"))
    if good:
        say("guests can run here")
    return 0 if good else 1


def _state(finding: Finding) -> str:
    if finding.found is not None:
        return "ok"
    if finding.damaged:
        return "damaged"
    return "failed" if finding.tried else "missing" if finding.needed else "absent"
