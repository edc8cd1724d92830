"""`qemu-sdei trace diff`: two traces compared, for people and for programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.guest_name import check_vcpu
from qemu_sdei.cli.output import add_verbosity, print_json, print_table, say, say_in
from qemu_sdei.errors import ProtocolError, UsageError

if TYPE_CHECKING:
    from qemu_sdei.trace.differences import Comparison, Difference, Only, Shown
    from qemu_sdei.trace.step_lists import Run

_MAX_CONTEXT: Final = 100
_ROWS: Final = 20
"""Rows of a table; with -v all."""
_LINES: Final = 20
"""Lines of one side of the first divergence."""


def register(trace: argparse.ArgumentParser) -> None:
    """Add the command below `trace`."""
    from qemu_sdei.trace.folds import FOLDS

    commands = trace.add_subparsers(dest="trace_command", metavar="COMMAND", prog=trace.prog, title="two traces")
    parser = commands.add_parser(
        "diff",
        help="compare two traces: where they part, and what differs",
        description="Compare two runs (two kernels, two firmwares, before and after a patch) by the calls of each "
        "vCPU. What differs from run to run, such as addresses and times, is folded. Exit code 0 if nothing differs, "
        "1 if something does.",
    )
    parser.add_argument("first", metavar="A", help="a trace: a guest's name, a file of `run --trace`, JSON lines")
    parser.add_argument("second", metavar="B", help="trace to compare with A")
    parser.add_argument("--vcpu", type=int, metavar="N", help="compare only this vCPU (default: all)")
    names = (*FOLDS, "all")
    parser.add_argument(
        "--no-fold",
        action="append",
        choices=names,
        default=[],
        metavar="WHAT",
        help="compare this too: " + "; ".join(f"{name}: {what}" for name, what in FOLDS.items()) + "; or all",
    )
    parser.add_argument(
        "--fold",
        action="append",
        choices=names,
        default=[],
        metavar="WHAT",
        help="do not compare this: the default for each WHAT; with `--no-fold all`, all but what is given here",
    )
    parser.add_argument("--context", type=int, default=3, metavar="N", help="steps around a divergence (default: 3)")
    add_verbosity(parser, json_output=True)
    parser.set_defaults(run=diff)


def folds_of(args: argparse.Namespace) -> frozenset[str]:
    """Names of what is folded."""
    from qemu_sdei.trace.folds import FOLDS

    compared = set(FOLDS) if "all" in args.no_fold else set(args.no_fold)
    folded = set(FOLDS) if "all" in args.fold else set(args.fold)
    return frozenset(FOLDS) - (compared - folded)


def diff(args: argparse.Namespace) -> int:
    """Compare two traces. Returns 0 if nothing differs, else 1."""
    from qemu_sdei.cli.trace_source import trace_of
    from qemu_sdei.trace.compare import compare
    from qemu_sdei.trace.reading import open_trace

    check_vcpu(args.vcpu)
    if not 0 <= args.context <= _MAX_CONTEXT:
        raise UsageError(f"--context {args.context} is not possible: give 0 to {_MAX_CONTEXT}")
    folds = folds_of(args)
    try:
        with open_trace(trace_of(args.first)[1]) as first, open_trace(trace_of(args.second)[1]) as second:
            found = compare(
                (first.meta, first.records()),
                (second.meta, second.records()),
                folds=folds,
                vcpu=args.vcpu,
                context=args.context,
            )
    except ProtocolError as error:
        # 1 would say that they differ.
        raise UsageError(str(error)) from None
    if args.json:
        print_json({"a": args.first, "b": args.second, "folded": sorted(folds), **found.document()})
    elif not args.quiet:
        _tell(args, found, folds)
    return 0 if found.same else 1


# ---- for people ------------------------------------------------------------------------------------------------------


def _tell(args: argparse.Namespace, found: Comparison, folds: frozenset[str]) -> None:
    for name, word, run in (("A", args.first, found.a), ("B", args.second, found.b)):
        say(f"{name}  {word}: {_described(run)}")
    for note in found.notes:
        say_in("yellow", f"note: {note}")
    if not found.exact:
        say_in("yellow", "note: the two differ so much that not everything they have in common is found")
    if found.same:
        say_in("green", f"same: {found.equal} steps")
    elif found.first is None:
        say(f"{found.equal} steps are the same, in the same order; what follows differs")
    else:
        _tell_first(found.first, found.equal)
        _tell_others(found.firsts[1:])
    rows = None if args.verbose else _ROWS
    _tell_answers(found, rows)
    _tell_only("Only in A", "-", "red", found.only_a, rows)
    _tell_only("Only in B", "+", "green", found.only_b, rows)
    _tell_only("In both, in another order", "~", "yellow", found.moved, rows)
    _tell_counts(found)
    say(f"folded: {', '.join(sorted(folds)) or 'nothing'}" + (" (see --no-fold)" if folds else ""))


def _described(run: Run) -> str:
    calls = sum(run.functions.values())
    vcpus = f"{run.meta.vcpus} vCPU" + ("s" if run.meta.vcpus != 1 else "")
    guest = f"guest '{run.meta.guest}', " if run.meta.guest else ""
    return f"{guest}{vcpus}, {calls} call" + ("s" if calls != 1 else "")


def _tell_first(first: Difference, equal: int) -> None:
    say("")
    same = "that is the same" if first.after == 1 else "that are the same"
    after = f"after {_steps(first.after)} {same}" if first.after else "at the first step"
    say_in("bold", f"First divergence: {_where(first.vcpu, first.event)}, {after} ({equal} in all sequences)")
    marks: list[tuple[str, str, Sequence[Shown]]] = [
        (" ", "", first.before),
        ("-", "red", first.only_a),
        ("+", "green", first.only_b),
        (" ", "", first.after_it),
    ]
    lines = [step for _, _, steps in marks for step in steps[:_LINES]]
    number = max((len(str(step.n)) for step in lines), default=1)
    for mark, style, steps in marks:
        for step in steps[:_LINES]:
            say_in(style, f"{mark} {step.n:>{number}} {step.time_ns / 1e9:>12.6f}  {step.text}{_times(step.times)}")
        if len(steps) > _LINES:
            more = len(steps) - _LINES + first.longer
            say_in(style, f"{mark} {'':>{number}} ... and {_steps(more)} more")
    for name, clause in (("A", first.clause_a), ("B", first.clause_b)):
        if clause and first.clause_a != first.clause_b:
            say(f"  {name}: {clause}")
    if not first.only_b or not first.only_a:
        say(f"  {'A' if first.only_b else 'B'} has nothing here")
    say("")


def _tell_others(others: list[Difference]) -> None:
    rows = []
    for one in others[:_ROWS]:
        step = next(iter([*one.only_a, *one.only_b]))
        rows.append([_where(one.vcpu, one.event), one.after, f"{'-' if one.only_a else '+'} {step.text}"])
    if rows:
        print_table("Other sequences differ too", ["where", "after steps", "first by"], rows)
        _more(len(others), _ROWS)


def _tell_answers(found: Comparison, rows: int | None) -> None:
    if not found.answers:
        return
    say_in("bold", "Answered differently")
    for one in found.answers[:rows]:
        say(f"  {_where(one.vcpu, one.event)}  {one.call}{_times(one.times)}, records {one.n_a} and {one.n_b}")
        for name, style, answer, clause in (("A", "red", one.a, one.clause_a), ("B", "green", one.b, one.clause_b)):
            say_in(style, f"    {name}: {answer}" + (f"  ({clause})" if clause else ""))
    _more(len(found.answers), rows)
    say("")


def _tell_only(title: str, mark: str, style: str, steps: list[Only], rows: int | None) -> None:
    if not steps:
        return
    say_in("bold", title)
    for one in steps[:rows]:
        record = f", record {one.n}" if one.n else ""
        say_in(style, f"{mark} {_where(one.vcpu, one.event)}  {one.step}{_times(one.times)}{record}")
    _more(len(steps), rows)
    say("")


def _tell_counts(found: Comparison) -> None:
    if found.counted:
        table: list[list[Any]] = [[function, vcpu, a, b] for function, vcpu, a, b in found.counted]
        print_table("Only counted, and differs", ["function", "vCPU", "A", "B"], table[:_ROWS])
    differing = [[name, a, b] for name, (a, b) in found.functions.items() if a != b]
    differing += [[name, a, b] for name, (a, b) in found.asides.items() if a != b]
    if differing:
        print_table("How often in all (for information)", ["what", "A", "B"], differing[:_ROWS])
        _more(len(differing), _ROWS)


def _more(count: int, rows: int | None) -> None:
    if rows is not None and count > rows:
        say(f"... and {count - rows} more (-v, --json)")


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""


def _where(vcpu: int, event: int | None) -> str:
    return f"vCPU {vcpu}" if event is None else f"vCPU {vcpu}, handler of {event:#x}"


def _steps(count: int) -> str:
    return f"{count} step" + ("s" if count != 1 else "")
