"""`qemu-sdei report`: a trace as one page, to look at in a browser and to send to somebody."""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from qemu_sdei.cli.files import write_file
from qemu_sdei.cli.output import Progress, add_verbosity, print_json, say
from qemu_sdei.cli.symbol_options import add_symbol_options, symbols_of
from qemu_sdei.cli.trace_source import trace_of
from qemu_sdei.errors import UsageError

CONSOLE_BYTES: Final = 2 << 20
"""Of a console the newest bytes that go into a page."""
_TOLD_EVERY: Final = 50_000
"""Records between two words on how far it is."""


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "report",
        description="Write a trace as one self-contained HTML page: a timeline of all vCPUs, searchable records, the "
        "guest's console, latencies, a state diagram with the states that were visited, and refused "
        "calls with the clause. The page needs no network.",
    )
    parser.add_argument(
        "what",
        nargs="?",
        metavar="NAME|FILE",
        help="a running guest, or a file of `run --trace` or `trace --json` (default: the only running guest)",
    )
    parser.add_argument("--output", "-o", metavar="FILE", required=True, help="the page, such as report.html")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--console", metavar="FILE", help="console output to show (default: the running guest's)")
    parser.add_argument(
        "--ftrace",
        metavar="FILE",
        help="show the guest's own ftrace too; FILE is a copy of its /sys/kernel/tracing/trace",
    )
    parser.add_argument("--title", default="", metavar="TEXT", help="title of the page (default: the guest's name)")
    parser.add_argument(
        "--records",
        type=int,
        metavar="N",
        help="list and draw the newest N records (default: 100000, at most 500000). Counts include all records",
    )
    add_symbol_options(parser)
    add_verbosity(parser, json_output=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import paths, rundir
    from qemu_sdei.trace.ftrace import open_with_ftrace
    from qemu_sdei.trace.reading import open_trace
    from qemu_sdei.views.html_page import render
    from qemu_sdei.views.page_data import MAX_RECORDS, RECORDS, PageData

    limit = RECORDS if args.records is None else args.records
    if not 1 <= limit <= MAX_RECORDS:
        raise UsageError(f"--records {args.records}: give a number from 1 to {MAX_RECORDS}")
    output = paths.expand(args.output)
    if os.path.lexists(output) and not args.force and not stat.S_ISCHR(output.lstat().st_mode):
        raise UsageError(f"{output} is there already: give --force to replace it")
    guest, trace = trace_of(args.what)
    console = _console(args.console, None if guest is None else guest.path / rundir.CONSOLE_LOG)
    symbols = symbols_of(args, guest)
    opened = open_trace(trace) if args.ftrace is None else open_with_ftrace(trace, paths.expand(args.ftrace))
    with Progress(args.quiet) as progress, opened as reading:
        progress(f"reading {trace}")
        records = reading.records()
        if symbols is not None:
            records = map(symbols.annotated, records)
        data = PageData(reading.meta, _told(records, progress), limit)
        progress("writing the page")
        page = render(data, console, title=args.title).encode()
        write_file(output, page, force=args.force)
    listed = len(data.newest)
    if args.json:
        refused = data.refusals.total
        print_json(
            {"page": str(output), "bytes": len(page), "records": data.total, "listed": listed, "refusals": refused}
        )
    else:
        only = f" (the newest {listed} listed)" if listed < data.total else ""
        say(f"{output}: {data.total} records{only}, {data.refusals.total} refusals, {max(len(page) >> 10, 1)} KiB")
    return 0


def _console(given: str | None, log: Path | None) -> str | None:
    from qemu_sdei import paths

    if given is not None:
        return newest_text(paths.expand(given))
    try:
        return None if log is None else newest_text(log)
    except UsageError:
        return None  # a guest that has no console of ours


def newest_text(path: Path) -> str:
    """The newest `CONSOLE_BYTES` of a console's log as text. Raises `UsageError`: it cannot be read."""
    try:
        # Not open(): of a FIFO without a writer it would wait for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UsageError(f"console {path} cannot be read: it is not a regular file")
            file.seek(max(0, os.fstat(fd).st_size - CONSOLE_BYTES))
            return file.read(CONSOLE_BYTES).decode(errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"console {path} cannot be read: {error.strerror}") from None


def _told(records: Iterable[object], progress: Progress) -> Iterator[object]:
    for number, record in enumerate(records):
        if number and number % _TOLD_EVERY == 0:
            progress(f"reading: {number} records")
        yield record
