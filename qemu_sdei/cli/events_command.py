"""`qemu-sdei events`: what happens in a running guest, as lines."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any, Final

from qemu_sdei.cli.guest_name import add_guest, check_vcpu
from qemu_sdei.cli.output import add_verbosity, say
from qemu_sdei.cli.screen import raw
from qemu_sdei.errors import LostGuestError, NotDeliveredError, UsageError

_LIMIT: Final = 50
_MAX_LIMIT: Final = 100_000
_EVERY: Final = 0.1
"""Seconds between two looks at what is new."""
_ASK: Final = 1.0
"""Seconds after which the backend is asked whether the guest is still there."""
_ANSWER: Final = 2.0
"""Seconds that the backend has for that. What is in the guest's trace ring is shown also where it does not answer.
"""

Record = dict[str, Any]


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "events",
        description="Print what happened, one line each: events that were triggered, delivered, completed, "
        "registered or not delivered (and why), changes of vCPUs, and resets. With --follow, continue "
        "until the guest ends.",
    )
    add_guest(parser, "name", directory=True)
    parser.add_argument("-f", "--follow", action="store_true", help="continue until the guest ends")
    parser.add_argument(
        "--limit", type=int, default=_LIMIT, metavar="N", help=f"show at most N earlier lines (default: {_LIMIT})"
    )
    parser.add_argument("--event", metavar="E", help="show only this event: its number (0x100) or name")
    parser.add_argument("--vcpu", type=int, metavar="N", help="show only what happens on vCPU N")
    add_verbosity(parser, messages=True)
    parser.add_argument("--json", action="store_true", help="print the records as JSON, one a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    if not 0 <= args.limit <= _MAX_LIMIT:
        raise UsageError(f"--limit {args.limit} is not possible: give 0 to {_MAX_LIMIT}")
    check_vcpu(args.vcpu)
    from qemu_sdei import rundir
    from qemu_sdei.cli.event_lines import Lines
    from qemu_sdei.cli.inject_command import number_of
    from qemu_sdei.cli.record_feed import RecordFeed
    from qemu_sdei.guest.overview import Overview

    with ExitStack() as stack:
        overview = stack.enter_context(Overview(rundir.find(args.name), timeout=_ANSWER, connect_timeout=_ANSWER))
        feed = stack.enter_context(closing(RecordFeed(overview.client)))
        before = feed.poll()
        names = feed.event_names()
        event = None if args.event is None else number_of(args.event, names)
        shown = _Shown(Lines(names), event, args.vcpu, as_json=args.json)
        shown.some(before, args.limit)
        while args.follow:
            time.sleep(_EVERY)
            # What was written before it was seen to be gone is read behind that.
            gone = overview.gone(_ASK)
            try:
                shown.some(feed.poll())
            except (LostGuestError, NotDeliveredError):  # there is no ring, and the guest has gone just now
                gone = gone or overview.gone(0)
                if not gone:
                    raise
            if gone:
                if not args.json:
                    say(gone)
                return 0
    return 0


class _Shown:
    """Prints what is wanted of records."""

    def __init__(self, lines: Any, event: int | None, vcpu: int | None, *, as_json: bool) -> None:
        self._lines = lines
        self._event = event
        self._vcpu = vcpu
        self._json = as_json

    def some(self, records: list[Record], limit: int | None = None) -> None:
        """Print those that are wanted; with `limit` the newest of them."""
        text: Callable[[Record], str | None] = self._as_json if self._json else self._as_line
        found = [line for record in records if self._wanted(record) and (line := text(record)) is not None]
        for line in found if limit is None else found[len(found) - min(limit, len(found)) :]:
            if self._json:
                raw(sys.stdout).write(line + "\n")
            else:
                say(line)
        if found:
            sys.stdout.flush()

    def _wanted(self, record: Record) -> bool:
        from qemu_sdei.cli.event_lines import event_of

        if record.get("type") == "dropped":
            return True
        return (self._event is None or event_of(record) == self._event) and (
            self._vcpu is None or record.get("vcpu") == self._vcpu
        )

    def _as_line(self, record: Record) -> str | None:
        line = self._lines.line(record)
        return None if line is None else line.text()

    def _as_json(self, record: Record) -> str | None:
        # Those that have a line are events; DEL is the one control character that JSON leaves as it is.
        return None if self._lines.line(record) is None else json.dumps(record).replace("\x7f", "\\u007f")
