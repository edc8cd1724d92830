"""`qemu-sdei crash matrix`: which endings of a stop by SDEI leave a capture kernel its CPUs, on which firmware."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.output import Progress, add_verbosity, print_json, print_table, say
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.crash.cells import Axes, Kernel
    from qemu_sdei.crash.document import CellResult, Matrix
    from qemu_sdei.crash.run import Plan

_FIRMWARE: Final = "spec,tfa,gic-active"
_SERIES: Final = "6.1,6.12"
_CAPTURES: Final = {"up": ("up",), "smp": ("smp",), "both": ("up", "smp")}
_MOST_ROUNDS: Final = 1000
_MOST_JOBS: Final = 64
_SHORTEST, _LONGEST = 5.0, 3600.0


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "crash",
        description="Crash guests on purpose, and compare the results.",
    )
    below = parser.add_subparsers(dest="crash", metavar="COMMAND", required=True)
    matrix: argparse.ArgumentParser = below.add_parser(
        "matrix",
        help="endings of a stop by SDEI, firmware profiles, kernels, sizes of the capture kernel",
        description="Crash a guest in each combination of kernel, firmware profile and handler ending, and show "
        "whether the dump came. In each cell two CPUs hang with interrupts masked, the kernel panics, "
        "event 0 stops the CPUs, and a capture kernel starts. A cell says how far it came, with how many "
        "CPUs, and why not further. Guests are booted once and restored for each cell. Exit code 0 if "
        "every cell could be judged (a hang is a result), else 1. See docs/howto/who-is-at-fault.md.",
    )
    group = matrix.add_argument_group("cells")
    group.add_argument(
        "--endings",
        metavar="E,...",
        help="how a stopped CPU leaves the event: stay, off, abort-stay, abort-off (the default: these four), "
        "complete-off, irq-off, linux; docs/reference/crash-matrix.md says what each does",
    )
    group.add_argument(
        "--firmware",
        action="append",
        metavar="P,...",
        help=f"firmware profiles of `qemu-sdei firmware --list`, or TOML files; may be repeated (default: {_FIRMWARE})",
    )
    group.add_argument(
        "--series",
        metavar="S,...",
        help=f'Debian\'s kernels, and own-7.3 of scripts/crash-kernel, whose cells are "not built" where it is not '
        f"(default: {_SERIES}, or --kernel alone)",
    )
    group.add_argument(
        "--kernel", action="append", default=[], metavar="FILE", help="your own kernel (Image); may be repeated"
    )
    group.add_argument(
        "--client",
        action="append",
        default=[],
        metavar="FILE",
        help='the client module for --kernel, one for each; without it the cells are "not built"',
    )
    group.add_argument(
        "--capture",
        choices=tuple(_CAPTURES),
        default="both",
        help="CPUs of the capture kernel: one (up), all (smp), or a cell for each (both, the default)",
    )
    group = matrix.add_argument_group("how")
    group.add_argument("--rounds", type=int, default=1, metavar="N", help="run each cell N times (default: 1)")
    group.add_argument(
        "--jobs", type=int, metavar="N", help="cells to run at a time (default: half the number of host CPUs)"
    )
    group.add_argument(
        "--limit",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds to wait for each stage, if nothing shows that the guest hangs (default: 60)",
    )
    group.add_argument("--html", metavar="FILE", help="also write a page for a browser; an existing file is replaced")
    add_verbosity(matrix, json_output=True)
    matrix.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei.crash import run as crash

    plan = _plan(args)
    page = None if args.html is None else _page(args.html)
    with Progress(args.quiet) as progress:
        matrix = crash.run(plan, progress=progress, on_cell=lambda result: _tell(args, progress, result))
    document = matrix.document()
    if page is not None:
        from qemu_sdei.cli.files import write_file
        from qemu_sdei.crash.page import render

        write_file(page, render(document).encode(), force=True)
    if args.json:
        print_json(document)
    else:
        _print(matrix)
    return 0 if matrix.judged else 1


def _plan(args: argparse.Namespace) -> Plan:
    from qemu_sdei.crash.crashing import Limits
    from qemu_sdei.crash.run import Plan

    jobs = max((os.cpu_count() or 1) // 2, 1) if args.jobs is None else args.jobs
    for option, value, most in (("--rounds", args.rounds, _MOST_ROUNDS), ("--jobs", jobs, _MOST_JOBS)):
        if not 1 <= value <= most:
            raise UsageError(f"{option} {value} is not possible: give 1 to {most}")
    if math.isnan(args.limit) or not _SHORTEST <= args.limit <= _LONGEST:
        raise UsageError(f"--limit {args.limit:g} is not possible: give {_SHORTEST:g} to {_LONGEST:g} seconds")
    return Plan(_axes(args), args.rounds, jobs, Limits(stage=args.limit))


def _axes(args: argparse.Namespace) -> Axes:
    from qemu_sdei.crash import endings
    from qemu_sdei.crash.cells import Axes, Capture
    from qemu_sdei.profiles.firmware_profile import load

    wanted = endings.DEFAULT if args.endings is None else _words("--endings", args.endings)
    firmware = _words("--firmware", ",".join(args.firmware or [_FIRMWARE]))
    for name in firmware:
        load(name)  # what cannot be is refused before a guest is booted
    captures = [Capture(word) for word in _CAPTURES[args.capture]]
    return Axes(endings.endings_of(wanted), firmware, _kernels(args), captures)


def _words(option: str, text: str) -> list[str]:
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise UsageError(f"{option} {text!r} names nothing")
    return words


def _kernels(args: argparse.Namespace) -> list[Kernel]:
    from qemu_sdei import paths
    from qemu_sdei.crash.cells import Kernel
    from qemu_sdei.host import own_kernels
    from qemu_sdei.host.kernel_packages import HOW
    from qemu_sdei.vm.options import SERIES

    series = args.series if args.series is not None else "" if args.kernel else _SERIES
    names = _words("--series", series) if series or not args.kernel else []
    for name in names:
        if SERIES.fullmatch(name) is None:
            raise UsageError(f"kernel series {name!r}: {HOW}")
    absent = [name for name in names if own_kernels.is_own(name) and own_kernels.find(name) is None]
    found = [Kernel(name, missing=own_kernels.not_built(name) if name in absent else "") for name in names]
    if args.client and len(args.client) != len(args.kernel):
        raise UsageError("give one --client for each --kernel, in the same order")
    for at, file in enumerate(args.kernel):
        image = _file("--kernel", paths.absolute(file))
        client = _file("--client", paths.absolute(args.client[at])) if args.client else None
        name = image.name if len({Path(other).name for other in args.kernel}) == len(args.kernel) else str(image)
        missing = "" if client is not None else "there is no client module for it: give --client FILE"
        found.append(Kernel(name, image, client, missing))
    return found


def _file(option: str, path: Path) -> Path:
    if not path.is_file():
        raise UsageError(f"{option} {path}: there is no such file")
    return path


def _page(text: str) -> Path:
    """Where the page goes; that it cannot is said before anything is run."""
    from qemu_sdei import paths

    path = paths.absolute(text)
    if not path.parent.is_dir() or path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"--html {path}: give a file in a directory that is there and can be written to")
    return path


def _tell(args: argparse.Namespace, progress: Progress, result: CellResult) -> None:
    """With -v, a line for each cell as it is done."""
    if not args.verbose:
        return
    verdict = result.verdict
    progress.done()
    stage = "no stage" if verdict.stage is None else f"{verdict.stage.value} after {verdict.seconds:.1f} s"
    why = f": {verdict.reason}" if verdict.reason else ""
    say(f"qemu-sdei: {result.cell.name}: {verdict.result.value}, {stage}, took {verdict.took:.1f} s{why}", error=True)


def _print(matrix: Matrix) -> None:
    from qemu_sdei.crash.table import STYLES, summary, table

    document = matrix.document()
    found = table(document)
    rows = [(*key, *(cell.text for cell in cells)) for key, cells in found.rows]
    styles = {cell.text: STYLES[cell.result] for _, cells in found.rows for cell in cells}
    print_table("Crash matrix", found.columns, rows, styles=styles)
    for number, note in enumerate(found.notes, 1):
        say(f"[{number}] {note}")
    if found.notes:
        say("")
    for ending in matrix.axes.endings:
        say(f"{ending.name}: a stopped CPU {ending.sentence}")
    say("", summary(document))
