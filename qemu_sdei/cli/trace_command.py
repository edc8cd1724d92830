"""`qemu-sdei trace`: what happened between a guest and its firmware, of a guest that runs or from a file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.output import add_verbosity, say
from qemu_sdei.cli.screen import raw
from qemu_sdei.cli.symbol_options import add_symbol_options, symbols_of
from qemu_sdei.cli.trace_source import trace_of
from qemu_sdei.errors import UsageError
from qemu_sdei.printable import printable

if TYPE_CHECKING:
    from qemu_sdei.rundir import Running
    from qemu_sdei.symbols.symbolizer import Symbolizer
    from qemu_sdei.trace.decode import Record
    from qemu_sdei.trace.meta import TraceMeta
    from qemu_sdei.trace.ring_reader import RingReader

_POLL: Final = 0.05
"""Seconds between two looks at a ring that is followed."""
_MAX_KEPT: Final = 1 << 22
"""Records that are kept in memory for --since and --last."""
_COLOURS: Final = {"bad": "1;31", "refused": "33", "event": "32", "quiet": "2", "plain": ""}
_SUFFIX: Final = ".pftrace"


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "trace",
        usage="%(prog)s [NAME|FILE] [options] | %(prog)s diff A B [options]",
        description="Show each firmware call, event, change of state, power change and injection of a running guest, "
        "or of a file that `run --trace` wrote. Of a running guest the newest 8192 records are there, "
        "also if it hangs or its backend is dead. `trace diff` compares two traces.",
    )
    parser.add_argument(
        "what", nargs="?", metavar="NAME|FILE", help="running guest, or trace file (default: the only running guest)"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="continue with new records until the guest ends")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="F",
        help="show only these records: call, event, frame, power or another type; vcpu=0,1; "
        "function=EVENT_SIGNAL or a pattern (*REGISTER); event=0x100; result=DENIED. If repeated, all "
        "must match",
    )
    parser.add_argument(
        "--since", metavar="T", help="show only records since then: 5s, 200ms or 2m ago; `boot`; #N for record number N"
    )
    parser.add_argument("--last", type=int, metavar="N", help="show only the newest N records")
    parser.add_argument(
        "--ftrace",
        metavar="FILE",
        help="show the guest's own ftrace too; FILE is a copy of its /sys/kernel/tracing/trace",
    )
    parser.add_argument("--perfetto", metavar="OUT", help=f"write a file for ui.perfetto.dev ({_SUFFIX})")
    add_symbol_options(parser)
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)
    from qemu_sdei.cli import trace_diff

    trace_diff.register(parser)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei.trace.filters import parse_filters, parse_since

    wanted = parse_filters(args.filter)
    since = None if args.since is None else parse_since(args.since)
    if args.last is not None and not 0 < args.last <= _MAX_KEPT:
        raise UsageError(f"--last {args.last} is not possible: give 1 to {_MAX_KEPT}")
    guest, path = trace_of(args.what)
    if args.follow:
        if guest is None:
            raise UsageError(f"{args.what} is a file: --follow is for a guest that runs")
        if args.perfetto or args.ftrace or args.since or args.last:
            raise UsageError("--follow shows what happens from now on: not with --perfetto, --ftrace, --since, --last")
        return _follow(args, guest, path, wanted)
    from qemu_sdei.trace.filters import since as newer
    from qemu_sdei.trace.reading import open_trace

    symbols = symbols_of(args, guest)
    if args.ftrace:
        from qemu_sdei.trace.ftrace import open_with_ftrace

        opened = open_with_ftrace(path, Path(args.ftrace))
    else:
        opened = open_trace(path)
    with opened as reading:
        records = reading.records()
        if symbols is not None:  # before any is left out: each may say where the kernel lies
            records = map(symbols.annotated, records)
        if since is not None:
            # What it begins with is known when all has been read.
            records = iter(newer(list(deque(records, _MAX_KEPT)), since))
        records = filter(wanted, records)
        if args.last is not None:
            records = iter(deque(records, args.last))
        if args.perfetto:
            return _write_perfetto(args, reading.meta, records)
        shown = _show(args, symbols, reading.meta, records)
    if not shown and not args.json:
        say("qemu-sdei: no such record", error=True)
    return 0


def _show(args: argparse.Namespace, symbols: Symbolizer | None, meta: TraceMeta, records: Iterable[Record]) -> int:
    """Print records. Returns how many."""
    line = _printer(args, symbols, meta)
    out = raw(sys.stdout)
    shown = 0
    if args.json:
        out.write(json.dumps(meta.document()) + "\n")
    for record in records:
        out.write(line(record) + "\n")
        shown += 1
    return shown


def _printer(args: argparse.Namespace, symbols: Symbolizer | None, meta: TraceMeta) -> Callable[[Record], str]:
    """What makes a line of a record."""
    from qemu_sdei.trace.columns import Columns, mood

    if args.json:
        return _json
    columns = Columns(meta.events, meta.started_ns, None if symbols is None else symbols.name)
    if not sys.stdout.isatty():
        return columns.line

    def coloured(record: Record) -> str:
        colour = _COLOURS[mood(record)]
        # What is in the line is safe already; the colour is ours.
        return f"\x1b[{colour}m{columns.line(record)}\x1b[0m" if colour else columns.line(record)

    return coloured


def _json(record: Record) -> str:
    return json.dumps(record).replace("\x7f", "\\u007f")


def _write_perfetto(args: argparse.Namespace, meta: TraceMeta, records: Iterable[Record]) -> int:
    from qemu_sdei.cli.output import Progress
    from qemu_sdei.views.perfetto import check_installed, write_perfetto

    check_installed()
    path = Path(args.perfetto)
    try:
        with Progress(args.quiet) as progress, path.open("wb") as out:
            progress(f"writing {path}")
            written = write_perfetto(out, meta.document(), records)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    say(f"{path}: {written.records} records; open it at ui.perfetto.dev, which reads it in the browser")
    return 0


# ---- follow ----------------------------------------------------------------------------------------------------------


def _follow(args: argparse.Namespace, guest: Running, path: Path, wanted: Callable[[Record], bool]) -> int:
    """Show what happens from now on, until the guest ends or the user does."""
    from qemu_sdei.errors import SdeiError
    from qemu_sdei.guest.control_client import ControlClient
    from qemu_sdei.trace.reading import records_of
    from qemu_sdei.trace.ring_reader import RingReader

    with ExitStack() as stack:
        try:
            # Else calls that always answer the same would only be counted.
            client = stack.enter_context(ControlClient(guest.control, identity=guest.identity))
            client.request("follow")
        except SdeiError as error:
            what = "what comes is shown all the same"
            say(f"qemu-sdei: its backend does not answer ({printable(error)}); {what}", error=True)
        ring = RingReader(path)
        stack.callback(ring.close)
        before = ring.newest
        ring.skip_to(before + 1)
        symbols = symbols_of(args, guest)
        if symbols is not None:
            _learn(symbols, path)
        line = _printer(args, symbols, ring.meta)
        out = raw(sys.stdout)
        if args.json:
            out.write(json.dumps(ring.meta.document()) + "\n")
        for record in records_of(ring.meta, _coming(guest, path, ring), ahead=0, before=before):
            if symbols is not None:
                record = symbols.annotated(record)
            if record["type"] == "dropped" or wanted(record):
                out.write(line(record) + "\n")
                out.flush()
    say(f"qemu-sdei: guest {guest.name!r} is gone", error=True)
    return 0


def _learn(symbols: Symbolizer, path: Path) -> None:
    """Have it know what the guest has done until now."""
    from qemu_sdei.trace.reading import open_trace

    with open_trace(path) as reading:
        for record in reading.records():
            symbols.learn(record)


def _coming(guest: Running, path: Path, ring: RingReader) -> Iterator[tuple[int, ...]]:
    """Slots as they come; ends with the guest."""
    from qemu_sdei import guest_identity

    while True:
        slots = ring.take()
        yield from slots
        if slots:
            continue
        if not path.exists() or (guest.identity and guest_identity.read(guest.path) != guest.identity):
            yield from ring.take()
            return
        time.sleep(_POLL)
