"""`qemu-sdei ras fuzz`: malformed hardware errors, shown to a guest's kernel until it breaks."""

from __future__ import annotations

import argparse
import math
import secrets
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.output import Progress, add_verbosity, print_json, print_table, say
from qemu_sdei.cli.signals import Terminated
from qemu_sdei.errors import SdeiError, UsageError

if TYPE_CHECKING:
    from qemu_sdei.fuzzing.campaign import Campaign
    from qemu_sdei.fuzzing.findings import Finding
    from qemu_sdei.fuzzing.results import Results
    from qemu_sdei.fuzzing.target import Target
    from qemu_sdei.rundir import Running
    from qemu_sdei.symbols.symbolizer import Symbolizer

_COUNT: Final = 1000
_MOST: Final = 1 << 40
_LONGEST: Final = 1 << 20
_STACK: Final = 4
"""Functions of a call trace that are shown."""
_WIDTH: Final = 76


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "fuzz",
        help="show malformed errors to a guest's kernel until it breaks",
        description="Report errors with wrong lengths, counts, offsets, revisions and GUIDs to the kernel of a copy "
        "of guest NAME, one after the other, and say how it reacted to each. NAME itself is not touched; "
        "a copy that is lost is made again. Each fault is tried again by itself, and its case is made as "
        "simple as possible. Exit code 1 if the kernel has faults, else 0.",
    )
    parser.add_argument("guest", metavar="NAME", nargs="?", help="name of the guest (see `qemu-sdei list`)")
    parser.add_argument(
        "--seed",
        type=int,
        metavar="S",
        help="seed of the cases; seed and number give the same case again (default: random)",
    )
    parser.add_argument("--count", type=int, metavar="N", help=f"cases to show (default: {_COUNT}, or --minutes)")
    parser.add_argument("--minutes", type=float, metavar="M", help="stop after M minutes")
    parser.add_argument("--source", metavar="S", help="error source to report by (see `qemu-sdei ras sources`)")
    parser.add_argument(
        "--fatal",
        type=float,
        default=1.0,
        metavar="PERCENT",
        help="percentage of fatal errors: the kernel must panic, and each costs a copy (default: 1)",
    )
    parser.add_argument(
        "--hang-after",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="a guest that is silent for so many seconds hangs (default: 20)",
    )
    parser.add_argument(
        "--keep",
        metavar="DIR",
        help="directory for findings, counts and the saved guest, for --resume (default: findings only, in "
        "ras-fuzz-SEED)",
    )
    parser.add_argument(
        "--resume", metavar="DIR", help="continue the run that was started with --keep DIR; NAME is not needed"
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="run the case of a finding once; exit code 1 if the fault is still there, else 0",
    )
    parser.add_argument("--trust", action="store_true", help="--resume: I know who made DIR")
    add_verbosity(parser, messages=True)
    parser.add_argument("--json", metavar="FILE", help="write counts and findings as JSON; - is standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    _check(args)
    if args.replay is not None:
        return _replay(args)
    from qemu_sdei.fuzzing.results import Results, Totals

    if args.resume is not None:
        guest = None
        results = Results.read(_directory(args.resume))
        if args.seed is not None and args.seed != results.totals.seed:
            raise UsageError(f"the run in {args.resume} has seed {results.totals.seed}: give no other one")
    else:
        guest = _found(args.guest, args.source)
        seed = secrets.randbelow(1 << 31) if args.seed is None else args.seed
        results = Results(Totals(seed, args.source or ""))
        if args.keep is not None:
            results.directory = _directory(args.keep)
            _fresh(results.directory)
        else:
            results.fallback = _free(Path(f"ras-fuzz-{seed}"))
    return _fuzz(args, results, guest)


def _check(args: argparse.Namespace) -> None:
    """Raise `UsageError` unless the options go together."""
    if args.resume is not None and (args.keep is not None or args.guest is not None or args.replay is not None):
        raise UsageError("--resume cannot be combined with NAME, --keep or --replay: its directory has the guest")
    if args.resume is None and args.guest is None:
        raise UsageError("say which guest: NAME (see `qemu-sdei list`), or --resume DIR")
    for name, value, most in (("--count", args.count, _MOST), ("--minutes", args.minutes, _LONGEST)):
        if value is not None and not (math.isfinite(value) and 0 < value <= most):
            raise UsageError(f"{name} must be more than 0, and at most {most}")
    if args.seed is not None and not 0 <= args.seed < 1 << 63:
        raise UsageError("--seed must be a number from 0 to 2^63 - 1")
    if not 0 <= args.fatal <= 100:
        raise UsageError("--fatal must be a number from 0 to 100")
    if not (math.isfinite(args.hang_after) and 1 <= args.hang_after <= 3600):
        raise UsageError("--hang-after must be from 1 to 3600 seconds")
    if args.trust and args.resume is None:
        raise UsageError("--trust needs --resume")


def _directory(text: str) -> Path:
    from qemu_sdei import paths

    return paths.absolute(text)


def _fresh(directory: Path) -> None:
    from qemu_sdei.fuzzing.results import CAMPAIGN, make

    if (directory / CAMPAIGN).exists():
        raise UsageError(f"{directory} has a run already: continue it with --resume DIR, or choose another directory")
    make(directory)


def _free(path: Path) -> Path:
    """A directory of that name that is not there yet."""
    number = 1
    found = path.absolute()
    while found.exists():
        number += 1
        found = path.absolute().with_name(f"{path.name}-{number}")
    return found


def _target(args: argparse.Namespace, state: Path, source: str | None, progress: Progress) -> Target:
    from qemu_sdei.fuzzing.target import Target

    return Target(
        state,
        source=source or None,
        trust=args.resume is None or args.trust,
        limit=args.hang_after,
        symbolizer=_symbolizer(state),
        progress=progress,
    )


def _symbolizer(state: Path) -> Symbolizer | None:
    """Names for addresses of the saved guest's kernel, for those that hang."""
    from qemu_sdei.boot.config import BUILTIN
    from qemu_sdei.paths import resolved
    from qemu_sdei.saving.saved import Saved
    from qemu_sdei.symbols.sources import Sources, load_image
    from qemu_sdei.symbols.symbolizer import Symbolizer as Names

    try:
        path = Saved.read(state).config.boot.get("kernel")
        if not isinstance(path, str) or path.startswith(BUILTIN):
            return None
        kernel = load_image(resolved(path))
    except SdeiError:
        return None
    return None if kernel is None else Names(Sources([kernel]))


def _fuzz(args: argparse.Namespace, results: Results, guest: Running | None) -> int:
    """Go on with a run, or begin one, and print what it has come to."""
    import tempfile

    from qemu_sdei.fuzzing.campaign import Campaign, Limits
    from qemu_sdei.fuzzing.copies import save_running
    from qemu_sdei.fuzzing.results import STATE

    count = args.count if args.count is not None or args.minutes is not None else _COUNT
    limits = Limits(count, None if args.minutes is None else 60 * args.minutes)
    with tempfile.TemporaryDirectory(prefix="qemu-sdei-fuzz-") as room, Progress(args.quiet) as progress:
        base = Path(room) if results.directory is None else results.directory
        state = base / STATE
        if guest is not None:
            progress("saving the guest")
            save_running(guest, state)
        with _target(args, state, args.source or results.totals.source, progress) as target:
            results.totals.source = str(target.source["name"])
            results.keep()
            campaign = Campaign(target, results, tell=_teller(progress), fatal=args.fatal)
            try:
                campaign.run(limits)
            except Terminated:
                progress.done()
                _report(args, campaign, target, ended="ended early")
                raise
            except SdeiError:
                progress.done()
                _report(args, campaign, target, ended="broken off")
                raise
            progress.done()
            _report(args, campaign, target)
    return 1 if results.findings else 0


def _teller(progress: Progress) -> Any:
    """Progress; where lines do not change, one of a hundred cases and each finding."""
    import sys

    shown = 0.0

    def tell(text: str) -> None:
        nonlocal shown
        if sys.stderr.isatty() or time.monotonic() - shown > 30:
            shown = time.monotonic()
            progress(text)

    return tell


def _found(name: str, source: str | None) -> Running:
    """The guest, which can be told of errors. Raises `UsageError`."""
    from qemu_sdei import rundir
    from qemu_sdei.fuzzing.target import chosen
    from qemu_sdei.guest.control_client import ControlClient

    guest = rundir.find(name)
    with ControlClient(guest.control, identity=guest.identity) as control:
        chosen(control.ras_sources(), source)
    return guest


def _report(args: argparse.Namespace, campaign: Campaign, target: Target, *, ended: str = "") -> None:
    results = campaign.results
    totals = results.totals
    if args.json is not None:
        _write(args.json, results, campaign)
        if args.json == "-":
            return
    about = f"seed {totals.seed}, source {totals.source!r}, {totals.kernel}"
    restored = f"{target.restored} times restored"
    if target.restored:
        restored += f" in {target.restore_seconds / target.restored:.1f} s each"
    title = f"{totals.cases} cases{', ' + ended if ended else ''}: {campaign.per_minute:.0f} a minute, {restored}"
    rows = [[name, count] for name, count in sorted(totals.counts.items(), key=lambda each: -each[1])]
    print_table(title, ["what the kernel did", "cases"], rows, note=about)
    for number, finding in enumerate(results.findings, 1):
        _say_finding(number, finding, results)
    if not results.findings:
        say("nothing was found")
    if results.directory is not None:
        say(f"kept in {results.directory}")
        if args.keep is not None or args.resume is not None:
            say(f"go on: qemu-sdei ras fuzz --resume {shlex.quote(str(results.directory))}")


def _say_finding(number: int, finding: Finding, results: Results) -> None:
    alone = "" if finding.alone else ", not by its case alone"
    times = f"{finding.hits} time{'s' if finding.hits != 1 else ''}"
    say(f"finding {number}: {finding.verdict}, {times}{alone}: {finding.title}")
    if finding.stack:
        more = " < ..." if len(finding.stack) > _STACK else ""
        say(f"    in {' < '.join(finding.stack[:_STACK])}{more}")
    edits = " ".join(f"--malform {shlex.quote(edit)}" for edit in finding.case.edits)
    path = results.written.get(finding.key)
    if path is not None:
        say(f"    qemu-sdei ras fuzz NAME --replay {shlex.quote(str(path))}")
        record = path.with_suffix(".record.json")
        say(f"    qemu-sdei ras inject NAME --record {shlex.quote(str(record))} {edits}".rstrip())


def _write(path: str, results: Results, campaign: Campaign) -> None:
    from qemu_sdei import codec
    from qemu_sdei.fuzzing.findings import write_json

    document = {
        **codec.to_data(results.totals),
        "per_minute": round(campaign.per_minute, 1),
        "findings": [codec.to_data(each) for each in results.findings],
    }
    if path == "-":
        print_json(document)
    else:
        write_json(_directory(path), document)


def _replay(args: argparse.Namespace) -> int:
    """Show the case of a finding to a copy of the guest."""
    import tempfile

    from qemu_sdei.fuzzing.copies import save_running
    from qemu_sdei.fuzzing.findings import Finding
    from qemu_sdei.fuzzing.results import STATE
    from qemu_sdei.fuzzing.verdicts import judge

    finding = Finding.read(_directory(args.replay))
    guest = _found(args.guest, args.source)
    case = finding.case.case()
    with tempfile.TemporaryDirectory(prefix="qemu-sdei-fuzz-") as room, Progress(args.quiet) as progress:
        state = Path(room) / STATE
        progress("saving the guest")
        save_running(guest, state)
        with _target(args, state, args.source, progress) as target:
            progress("showing it")
            if len(case.data) > target.shape.size:
                raise UsageError(f"the case has {len(case.data)} bytes, the source takes {target.shape.size}")
            judged = judge(target.show(case.data, alone=True), asks_to_panic=case.asks_to_panic)
    trouble = judged.trouble
    if args.json is not None:
        document = {
            "verdict": judged.verdict.value,
            "key": judged.key,
            "same": judged.key == finding.key,
            "title": trouble.title if trouble is not None else judged.note,
        }
        print_json(document) if args.json == "-" else None
    if args.json != "-":
        what = f": {trouble.title if trouble is not None else judged.note}".rstrip(": ")
        same = "the same as was found" if judged.key == finding.key else f"not what was found ({finding.verdict})"
        say(f"{judged.verdict.value}{what}; {same}" if judged.verdict.is_finding else f"{judged.verdict.value}{what}")
        for line in trouble.lines if trouble is not None and args.verbose else ():
            say(f"    {line}")
    return 1 if judged.verdict.is_finding else 0
