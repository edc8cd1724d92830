"""`qemu-sdei logs`: what a guest has printed, also one without a supervisor, or that has ended."""

from __future__ import annotations

import argparse
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.output import add_verbosity, print_data, say
from qemu_sdei.cli.streams import OutputError, output_lost
from qemu_sdei.errors import UsageError

_LOOK: Final = 0.1
_CHUNK: Final = 1 << 16
_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|min|h|d)?")
_UNITS: Final = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "logs",
        description="Print what a guest has printed on its console: the first 16 MiB of it. It works even if the guest "
        "or its supervisor does not answer. If a guest of `run -d` has ended, its last 256 KiB are kept until `wait` "
        "has returned its result, or until another guest takes its name.",
    )
    add_guest(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="also print what comes next, until the guest ends")
    parser.add_argument(
        "--since",
        metavar="WHEN",
        help="only what was printed since: a time of today (14:05), a date and time (2026-11-30T14:05), or so long ago "
        "(90, 90s, 10m, 2h)",
    )
    parser.add_argument("--raw", action="store_true", help="the bytes as they came, control characters and all")
    add_verbosity(parser, messages=True)
    parser.set_defaults(run=run)


def moment(text: str, now: float) -> float:
    """The time that `--since` means, in seconds since 1970. Raises `UsageError`."""
    if found := _SPAN.fullmatch(text.strip()):
        return now - float(found[1]) * _UNITS[found[2]]
    today = datetime.fromtimestamp(now).astimezone()
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
            clock = datetime.strptime(text, "%H:%M:%S" if text.count(":") == 2 else "%H:%M")
            return today.replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0).timestamp()
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(
            f"--since {text!r} is not understood: give a time (14:05), a date and time, or so long ago (90s, 10m, 2h)"
        ) from None


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import boundedlog, rundir, rundir_ended

    since = None if args.since is None else moment(args.since, time.time())
    try:
        guest = rundir.find(args.guest)
    except UsageError:
        found = None if args.guest is None else rundir_ended.find(args.guest)
        if found is None:
            raise
        _Printer(raw=args.raw).take(_all(rundir_ended.console(found.name)), last=True)
        return 0
    path, printer = guest.path / rundir.CONSOLE_LOG, _Printer(raw=args.raw)
    at = 0 if since is None else boundedlog.position(path, since)
    while True:
        data = _from(path, at)
        at += len(data)
        printer.take(data)
        if data:
            continue
        if not args.follow:
            break
        if at > boundedlog.CONSOLE_LIMIT:
            say(f"qemu-sdei: the log is full; `qemu-sdei console {guest.name} --look` shows what comes", error=True)
            break
        if not path.exists():
            # It has ended, or goes on elsewhere on this host with all that it had printed.
            there = [each for each in rundir.running() if each.identity == guest.identity]
            if not there:
                break
            guest = there[0]
            path = guest.path / rundir.CONSOLE_LOG
        time.sleep(_LOOK)
    printer.take(b"", last=True)
    return 0


def _all(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _from(path: Path, at: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(at)
            return file.read(_CHUNK)
    except OSError:
        return b""


class _Printer:
    """Console bytes on standard output: whole lines, without our initramfs' markers and carriage returns; at a terminal
    without control characters, too.
    """

    def __init__(self, *, raw: bool) -> None:
        from qemu_sdei.cli.terminal import MarkerFilter

        self._raw = raw
        self._filter = MarkerFilter()
        self._rest = b""

    def take(self, data: bytes, *, last: bool = False) -> None:
        """Print what is complete of it. `last`: nothing more comes. Raises `OutputError`, `BrokenPipeError`."""
        if self._raw:
            self._write(data)
            return
        data = self._rest + self._filter.feed(data)
        whole, newline, self._rest = data.rpartition(b"\n")
        if last:
            whole, newline, self._rest = data, b"", b""
        text = re.sub(rb"\r+\n", b"\n", whole + newline)
        if sys.stdout.isatty():
            print_data(text.decode(errors="replace").replace("\r", ""))
            sys.stdout.flush()
        else:
            self._write(text)

    @staticmethod
    def _write(data: bytes) -> None:
        if not data:
            return
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except (BrokenPipeError, OutputError):
            raise
        except OSError as error:
            raise output_lost(error) or BrokenPipeError() from None
