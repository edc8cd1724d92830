"""`qemu-sdei compare`: the same calls on our firmware and on another one, and where they part."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.firmware_image import add_firmware_image, check_none, entry_of
from qemu_sdei.cli.machine_arguments import add_machine_options, machine_options, split_words
from qemu_sdei.cli.output import Progress, add_verbosity, print_json, print_table, say, say_in
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.differential.comparison import Comparison
    from qemu_sdei.differential.hunt import Finding, Plan
    from qemu_sdei.differential.judge import Verdict
    from qemu_sdei.differential.sides import ImageSide, OurSide
    from qemu_sdei.differential.suites import Suites
    from qemu_sdei.vm.options import GuestOptions

_MOST_COUNT: Final = 10_000_000
_MOST_CALLS: Final = 24
_MOST_MINUTES: Final = 24 * 60
_MOST_FINDINGS: Final = 100


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compare",
        description="Run generated sequences of calls, and the conformance suite, on our firmware and on another "
        "one. Report each difference: the first call whose answers differ, both answers, the clause, and "
        "the shortest sequence that shows it. Exit code 1 if something differs that must not, else 0. "
        "See docs/howto/compare-firmwares.md.",
    )
    title = "the other firmware (or --firmware)"
    add_firmware_image(parser, title, "the other firmware: an image for QEMU's virt,secure=on")
    add_machine_options(parser, smp=2)
    group = parser.add_argument_group("how much")
    group.add_argument(
        "--count", type=int, default=1000, metavar="N", help="number of sequences (default: 1000; 0: none)"
    )
    group.add_argument(
        "--calls", type=int, default=10, metavar="N", help="about how many calls a sequence has (default: 10)"
    )
    group.add_argument(
        "--seed",
        type=int,
        default=1,
        metavar="S",
        help="seed of the sequences; the same seed makes the same sequences (default: 1)",
    )
    group.add_argument(
        "--minutes", type=float, default=5.0, metavar="M", help="start no sequence after M minutes (default: 5)"
    )
    group.add_argument(
        "--most", type=int, default=12, metavar="N", help="stop after N different findings (default: 12)"
    )
    group.add_argument(
        "--conformance",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run the conformance suite on both too (default: on)",
    )
    group.add_argument("--keep", metavar="DIR", help="write a file for each finding into DIR")
    group.add_argument("--replay", metavar="FILE", help="run only the sequence of this file, which --keep wrote")
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei.differential import comparison, findings, suites

    plan = _plan(args)
    options, theirs = _sides(args)
    script = None if args.replay is None else findings.replay(Path(args.replay), options.smp)
    kept: list[Path] = []
    with Progress(args.quiet) as progress:

        def on_finding(finding: Finding) -> None:
            if args.keep is not None:
                machine = {"smp": options.smp, "cpu": options.cpu, "virtualization": options.virtualization}
                kept.append(findings.keep(Path(args.keep), len(kept) + 1, finding, machine))

        found = comparison.run(
            options, theirs, plan, calls=args.calls, script=script, progress=progress, on_finding=on_finding
        )
        both = suites.run(found.ours, theirs, progress) if args.conformance and script is None else None
    if args.json:
        print_json(_document(found, both, kept))
    else:
        _print(args, found, both, kept)
    differs = bool(found.outcome.findings) or found.outcome.broken
    return 1 if differs or (both is not None and bool(both.differ or both.broken)) else 0


def _plan(args: argparse.Namespace) -> Plan:
    from qemu_sdei.differential.hunt import Plan

    for option, value, low, high in (
        ("--count", args.count, 0, _MOST_COUNT),
        ("--calls", args.calls, 1, _MOST_CALLS),
        ("--most", args.most, 1, _MOST_FINDINGS),
    ):
        if not low <= value <= high:
            raise UsageError(f"{option} {value} is not possible: give {low} to {high}")
    if not 0 < args.minutes <= _MOST_MINUTES or math.isnan(args.minutes):
        raise UsageError(f"--minutes {args.minutes:g} is not possible: give more than 0, and {_MOST_MINUTES} at most")
    return Plan(args.seed, args.count, args.minutes * 60, args.most)


def _sides(args: argparse.Namespace) -> tuple[GuestOptions, OurSide | ImageSide]:
    """The machine, and the other firmware on it. Raises `UsageError`."""
    from qemu_sdei.differential.sides import OurSide, check_cpus, image_side

    if args.name:
        raise UsageError("--name is for one guest, and this starts many")
    options = machine_options(args)
    check_cpus(options)
    if (args.firmware_image is None) == (args.firmware is None):
        raise UsageError("what is our firmware to be compared with? Give --firmware-image FILE, or --firmware PROFILE")
    if args.firmware_image is not None:
        if args.hypervisor:
            raise UsageError("--hypervisor is for the Python firmware: another one is called by SMC")
        entry = entry_of(args.firmware_entry)
        return options, image_side(args.firmware_image, entry, replace(options, qemu_args=split_words(args.qemu_arg)))
    check_none(args)
    return replace(options, firmware=None), OurSide(f"profile {args.firmware}", options)


def _document(found: Comparison, both: Suites | None, kept: list[Path]) -> dict[str, Any]:
    from qemu_sdei.differential import findings

    return {
        "theirs": found.theirs.name,
        "facts": found.facts,
        **findings.of_outcome(found.outcome),
        "starts": {"ours": found.starts[0], "theirs": found.starts[1]},
        "conformance": None if both is None else asdict(both),
        "kept": [str(path) for path in kept],
    }


def _print(args: argparse.Namespace, found: Comparison, both: Suites | None, kept: list[Path]) -> None:
    outcome = found.outcome
    for number, finding in enumerate(outcome.findings, 1):
        _print_finding(number, finding, found.theirs.name)
        if number <= len(kept):
            say(f"    kept: {kept[number - 1]}")
        say("")
    if outcome.allowed:
        rows = [(one.what, one.why, times) for one, times in outcome.allowed.most_common()]
        print_table("Differs, allowed", ("what", "why it may", "sequences"), rows)
    if both is not None:
        _print_suites(both, found.theirs.name)
    rate = outcome.calls / outcome.seconds if outcome.seconds else 0.0
    count = len(outcome.findings)
    tried = f"{outcome.sequences} sequence{'s' if outcome.sequences != 1 else ''}, {outcome.calls} calls"
    guests = f"{found.starts[0]} + {found.starts[1]} guests"
    say(f"{tried} in {outcome.seconds:.1f} s ({rate:.0f} calls/s), {guests}")
    if outcome.unsteady:
        say(f"{len(outcome.unsteady)} differed once, and not again in new guests: not counted (-v shows them)")
        for verdict in outcome.unsteady if args.verbose else ():
            _print_unsteady(verdict)
    if outcome.ended:
        say(f"ended early: {outcome.ended}")
    say_in("red" if count else "green", f"{count} difference{'s' if count != 1 else ''} that nothing allows")


def _print_finding(number: int, finding: Finding, name: str) -> None:
    from qemu_sdei.differential import rules
    from qemu_sdei.differential.sequence import lines

    verdict = finding.verdict
    first = verdict.first
    assert first is not None
    calls = verdict.script.calls
    say_in("bold", f"Difference {number}, in {calls} call{'s' if calls != 1 else ''} (sequence {finding.number})")
    say(*(f"    {line}" for line in lines(verdict.script)))
    say(f"  first: {rules.at_place(verdict.script, first.place)}")
    say(f"    ours:   {rules.answer(verdict.script, first.ours, first.ours_end)}")
    say(f"    theirs: {rules.answer(verdict.script, first.theirs, first.theirs_end)}  ({name})")
    say(f"    rule:   {finding.clause}")
    say(*(f"    {line}" for line in rules.health(verdict)))
    if finding.seen > 1:
        say(f"    {finding.seen} sequences showed it")
    if not finding.steady:
        say("    in new guests it did not come again when it was short: this is the whole sequence")


def _print_unsteady(verdict: Verdict) -> None:
    from qemu_sdei.differential import rules
    from qemu_sdei.differential.sequence import lines

    first = verdict.first
    assert first is not None
    say(*(f"    {line}" for line in lines(verdict.script)))
    say(f"    {rules.at_place(verdict.script, first.place)}")
    for name, record, end in (("ours", first.ours, first.ours_end), ("theirs", first.theirs, first.theirs_end)):
        say(f"    {name}: {rules.answer(verdict.script, record, end)}")


def _print_suites(both: Suites, name: str) -> None:
    if both.broken:
        say(f"conformance: {both.broken}")
        return
    rows = [(one.number, one.ours, one.theirs, one.name, one.reason) for one in both.differ]
    if rows:
        print_table("Conformance scenarios that differ", ("", "ours", "theirs", "scenario", "remark"), rows)
    say(f"conformance: {both.same} scenarios the same, {len(rows)} differ, {both.skipped} skipped by {name} or by us")
