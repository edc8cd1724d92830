"""`qemu-sdei conformance`: goes through the rules of SDEI with a bare-metal guest, and says which do not hold."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qemu_sdei.cli.firmware_image import add_firmware_image, check_none, entry_of
from qemu_sdei.cli.machine_arguments import add_machine_options, machine_options, say_profile, split_words
from qemu_sdei.cli.output import Progress, add_verbosity, print_json, print_table, say
from qemu_sdei.cli.report_option import RunReport, add_report_option
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.conformance import Report, Result

_TRACE_SHOWN = 12


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "conformance",
        description="Run the conformance suite on the Python firmware and print a table of its scenarios. For each "
        "scenario that failed, print what was expected, what came, and the calls before it. Exit code 0 "
        "if no scenario failed, else 1. docs/reference/conformance.md lists the scenarios, and says how "
        "to run them on other firmware and how to add your own.",
    )
    parser.add_argument(
        "--filter", default="", metavar="F", help="scenarios by number, range or group, such as 13,20-25,bind"
    )
    parser.add_argument("--tap", action="store_true", help="print TAP 13")
    parser.add_argument(
        "--scenarios",
        metavar="DIR",
        help="directory with scenarios of your own; they are compiled in, which needs a cross compiler",
    )
    what = "test this firmware image for QEMU's virt,secure=on in place of ours"
    add_firmware_image(parser, "another firmware", what)
    add_machine_options(parser, smp=4)
    parser.add_argument("--append", default="", metavar="WORDS", help="the guest's own options")
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="S", help="end after S seconds, as a failure (default: 300)"
    )
    add_report_option(parser)
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import conformance

    if args.tap and args.json:
        raise UsageError("--tap and --json: choose one")
    if not 0 < args.timeout < math.inf:
        raise UsageError("--timeout must be more than 0 seconds")
    image, entry = _image(args)
    options = replace(machine_options(args), append=args.append, qemu_args=split_words(args.qemu_arg))
    say_profile(options)
    with (
        Progress(args.quiet) as progress,
        tempfile.TemporaryDirectory(prefix="qemu-sdei-") as folder,
        RunReport(args.report, "SDEI conformance") as page,
    ):
        own = None
        if args.scenarios is not None:
            progress(f"compiling {args.scenarios}")
            own = conformance.build(Path(args.scenarios), Path(folder))
        common = {"scenarios": args.filter, "own": own, "progress": progress, "timeout": args.timeout}
        if image is None:
            report = conformance.run(options, **common, keep=page.next_guest)
        else:
            report = conformance.run_image(image, options, entry=entry, **common)
    if args.tap:
        sys.stdout.write(conformance.write_tap(report.results))
    elif args.json:
        print_json(_document(report))
    else:
        _print(report, args.verbose)
    return 0 if report.ok else 1


def _image(args: argparse.Namespace) -> tuple[str | None, int | None]:
    """The other firmware's image, and where it enters the guest. Raises `UsageError`."""
    if args.firmware_image is None:
        check_none(args)
        return None, None
    for option, given in (
        ("--events", args.events),
        ("--hypervisor", args.hypervisor),
        ("--firmware", args.firmware),
        ("--no-sdei", args.no_sdei),
        ("--sdei-version", args.sdei_version),
        ("--sdei-vendor", args.sdei_vendor),
        ("--sdei-signal", args.sdei_signal),
        ("--sdei-slots", args.sdei_slots),
        ("--service", args.service),
        ("--name", args.name),
        ("--report", args.report),
    ):
        if given:
            raise UsageError(f"{option} is for the Python firmware, which --firmware-image leaves out")
    return args.firmware_image, entry_of(args.firmware_entry)


def _document(report: Report) -> dict[str, Any]:
    from qemu_sdei.conformance import Outcome

    return {
        "ok": report.ok,
        "passed": report.count(Outcome.PASS),
        "failed": report.count(Outcome.FAIL),
        "skipped": report.count(Outcome.SKIP),
        "seconds": round(report.seconds, 3),
        "starts": report.starts,
        "firmware": list(report.firmware),
        "results": [asdict(result) for result in report.results],
    }


def _print(report: Report, verbose: int) -> None:
    from qemu_sdei.conformance import Outcome

    for line in report.firmware:
        say(line)
    rows = [(r.number, r.outcome.value, r.name, r.source, _remark(r)) for r in report.results]
    print_table("", ("", "result", "scenario", "source", "remark"), rows)
    for result in report.results:
        if result.outcome is Outcome.FAIL:
            _print_failure(result, verbose)
    counts = [(Outcome.PASS, "passed"), (Outcome.FAIL, "failed"), (Outcome.SKIP, "skipped")]
    say(", ".join(f"{report.count(outcome)} {word}" for outcome, word in counts) + f" in {report.seconds:.1f} s")


def _remark(result: Result) -> str:
    if result.reason:
        return result.reason
    return "; ".join(result.notes)


def _print_failure(result: Result, verbose: int) -> None:
    say(f"{result.number} {result.name} ({result.source})")
    for key, value in result.details.items():
        if isinstance(value, str):
            say(f"    {key + ':':10} {value}")
        else:
            say(f"    {key}:")
            for item in value:
                say(f"        {item}")
    if result.trace:
        from qemu_sdei.trace.columns import Columns

        say("    trace:")
        columns = Columns(origin_ns=int(result.trace[0]["at_ns"]))
        for record in result.trace if verbose else result.trace[-_TRACE_SHOWN:]:
            say("        " + columns.line(record))
    say("")
