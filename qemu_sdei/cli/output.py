"""What the commands print: progress, tables, JSON. `rich` is loaded only for a table on a terminal."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from qemu_sdei import message_log
from qemu_sdei.cli.screen import raw
from qemu_sdei.host.progress import NOTE
from qemu_sdei.printable import printable, printable_lines

_TICK: Final = 0.2
_SPIN: Final = "|/-\\"
_COLUMNS: Final = 80


_MESSAGES: Final = 2
"""How often `-v` must be given to see messages."""


def add_verbosity(parser: argparse.ArgumentParser, *, json_output: bool = False, messages: bool = False) -> None:
    """Add `-v`, `-q` and, where there is output to read, `--json`. `messages`: `-vv` shows what is said to a guest's
    processes.
    """
    more = "; -vv: also each message of QMP, control sockets and migrations, with its time" if messages else ""
    parser.add_argument("-v", "--verbose", action="count", default=0, help=f"print more{more}")
    parser.set_defaults(messages=messages)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    if json_output:
        parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def messages_wanted(args: argparse.Namespace) -> bool:
    """Whether the user wants to see messages: `add_verbosity(messages=True)`, and `-vv` was given."""
    return bool(getattr(args, "messages", False)) and args.verbose >= _MESSAGES


def say(*lines: object, error: bool = False) -> None:
    """Print `lines`, each as one line whatever is in it; with `error` on standard error."""
    for line in lines:
        print(printable(line, None), file=sys.stderr if error else sys.stdout, flush=error)


def say_in(style: str, *lines: object) -> None:
    """Print `lines` as `say` does, on a terminal in a style of rich ("red", "bold"); "": in none."""
    if not style or not sys.stdout.isatty():
        say(*lines)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=raw(sys.stdout), soft_wrap=True, highlight=False)
    for line in lines:
        console.print(Text(printable(line, None), style=style))


def print_data(text: str) -> None:
    """Print text that programs read: as it is, but at a terminal like all other text."""
    raw(sys.stdout).write(printable_lines(text) if sys.stdout.isatty() else text)


class Progress:
    """Shows on standard error what takes its time: one changing line on a terminal, plain lines elsewhere."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        # Among messages a line that changes would be lost.
        self._tty = sys.stderr.isatty() and not message_log.wanted()
        self._text = ""
        self._since = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, text: str) -> None:
        """What is being done now."""
        if self._quiet:
            return
        if text.startswith(NOTE):
            self.done()
            say(f"qemu-sdei: {text}", error=True)
            return
        with self._lock:
            self._text = text
            self._since = time.monotonic()
            if not self._tty:
                say(f"qemu-sdei: {text}", error=True)
                return
            self._draw(0)
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._tick, daemon=True)
            self._thread.start()

    def _draw(self, turn: int) -> None:
        elapsed = time.monotonic() - self._since
        seconds = f" {elapsed:.0f} s" if elapsed >= 1 else ""
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
        except (OSError, ValueError):
            columns = _COLUMNS
        # One that goes on in the next line could not be taken away.
        text = _fitted(printable(self._text), columns - len(seconds) - 3)
        raw(sys.stderr).write(f"\r\x1b[K{_SPIN[turn % 4]} {text}{seconds}")
        sys.stderr.flush()

    def _tick(self) -> None:
        turn = 0
        while not self._stop.wait(_TICK):
            turn += 1
            with self._lock:
                if not self._stop.is_set():
                    self._draw(turn)

    def done(self) -> None:
        """Take the line away: something else is printed now."""
        if self._thread is None:
            return
        with self._lock:
            self._stop.set()
            raw(sys.stderr).write("\r\x1b[K")
            sys.stderr.flush()
        self._thread.join(1)
        self._thread = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.done()


def _fitted(text: str, columns: int) -> str:
    """As much of `text` as there is place for."""
    width = 0
    for number, character in enumerate(text):
        width += 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
        if width > columns:
            return text[: max(number - 3, 0)] + "..."
    return text


def print_json(value: Any) -> None:
    """Print `value` as JSON, one line to a terminal's taste when it is one."""
    # DEL is the one control character that JSON leaves as it is. Raw: a line of it may be of any length.
    text = json.dumps(value, indent=2 if sys.stdout.isatty() else None).replace("\x7f", "\\u007f")
    raw(sys.stdout).write(text + "\n")


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    note: str = "",
    styles: Mapping[str, str] | None = None,
) -> None:
    """Print a table: with lines and colour on a terminal, as plain aligned text elsewhere. `note` is a second line of
    its title; `styles` has the styles of rich for cells by what they say, beside those that every table has.
    """
    cells = [["" if cell is None else printable(cell) for cell in row] for row in rows]
    title = "\n".join(printable(line) for line in (title, note) if line)
    columns = [printable(column) for column in columns]
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        # Text: of a string rich reads [words] in brackets as styles and links.
        table = Table(
            title=Text(title) if title else None,
            box=SIMPLE_HEAD,
            title_justify="left",
            title_style="bold",
            pad_edge=False,
        )
        for column in columns:
            # Not cut with an ellipsis: what does not fit goes on in the next line.
            table.add_column(Text(column), overflow="fold")
        known = _STYLES if styles is None else {**_STYLES, **styles}
        for row in cells:
            table.add_row(*(Text(cell, style=known.get(cell, "")) for cell in row))
        Console(file=raw(sys.stdout)).print(table)
        return
    if title:
        print(title)
    widths = [max(len(column), *(len(row[n]) for row in cells), 0) for n, column in enumerate(columns)]
    for row in [list(columns), *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()


_STYLES: Final = {
    "on": "green",
    "ok": "green",
    "off": "dim",
    "missing": "red",
    "damaged": "red",
    "failed": "red",
    "yes": "green",
    "no": "dim",
    "not ok": "red",
    "error": "bold red",
    "warning": "yellow",
    "note": "dim",
}
