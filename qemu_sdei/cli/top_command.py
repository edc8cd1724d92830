"""`qemu-sdei top`: a live view of a running guest."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.output import add_verbosity, print_json, say
from qemu_sdei.cli.screen import raw
from qemu_sdei.cli.symbol_options import add_symbol_options, symbols_of
from qemu_sdei.errors import ProtocolError, SdeiError, UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from qemu_sdei.cli.top_layout import View
    from qemu_sdei.cli.top_watch import Watch

_INTERVAL: Final = 1.0
_ONCE: Final = 0.5
"""Seconds between the two looks of `--once`: what happens a second wants two."""
_PAPER: Final = (120, 24)
"""Columns where there is no terminal."""


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "top",
        description="Show a running guest live: the state of each event on each vCPU, power, calls and events a "
        "second, latencies, and what happens. Keys choose a vCPU and an event, inject it, and pause the "
        "guest; ? lists the keys. Without a terminal, it prints the view once.",
    )
    add_guest(parser, "name", directory=True)
    parser.add_argument("--once", action="store_true", help="print the view once, as plain text")
    parser.add_argument(
        "--interval",
        type=float,
        metavar="S",
        help=f"seconds between two views (default: {_INTERVAL:g}; with --once {_ONCE:g})",
    )
    add_symbol_options(parser)
    add_verbosity(parser, json_output=True, messages=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    if args.interval is not None and not 0.05 <= args.interval < math.inf:
        raise UsageError("--interval needs a number of seconds, 0.05 or more")
    from qemu_sdei import rundir
    from qemu_sdei.cli.full_screen import FullScreen
    from qemu_sdei.cli.top_watch import Watch

    guest = rundir.find(args.name)
    once = args.once or args.json or not FullScreen.possible()
    why: list[str] = []
    watch = Watch(
        guest,
        args.interval or (_ONCE if once else _INTERVAL),
        # At the terminal the vCPU's line shows numbers; what is in their way is said before or behind the picture.
        lambda: symbols_of(args, guest, tell=why.append) if args.symbols or not once else None,
    )
    try:
        if args.symbols:
            watch.load_symbols()  # what the user names and is none is said at once
        if once:
            return _once(args, watch)
        return _live(watch)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ProtocolError(f"the backend's status is not of the protocol's form ({error!r})") from None
    finally:
        watch.close()
        if args.symbols and not args.json:
            say(*(f"qemu-sdei: symbols: {sentence}" for sentence in why), error=True)


def _once(args: argparse.Namespace, watch: Watch) -> int:
    watch.look()
    time.sleep(args.interval or _ONCE)
    view = watch.look()
    if args.json:
        print_json(view.status | {"rates": view.rates, "latency": watch.latency.document()})
        return 0
    from rich.console import Console

    from qemu_sdei.cli.top_layout import whole

    width = shutil.get_terminal_size(_PAPER).columns if sys.stdout.isatty() else _PAPER[0]
    console = Console(file=raw(sys.stdout), width=width, highlight=False, soft_wrap=True)
    for line in whole(view, width):
        console.print(line)
    return 0


def _live(watch: Watch) -> int:
    from qemu_sdei.cli.full_screen import FullScreen
    from qemu_sdei.cli.top_choice import INJECT, PAUSE, QUIT, SUSPEND, Choice, shown_events
    from qemu_sdei.cli.top_layout import screen

    watch.look()  # what cannot be at all is said by an ordinary message
    terminal, choice = FullScreen(), Choice()
    with terminal.opened():
        watch.start(terminal.wake)
        while not watch.ended:
            view = watch.view()

            def draw(width: int, height: int, view: View = view) -> list[Text]:
                return screen(view, choice, width, height)

            terminal.show(draw)
            for key in terminal.wait(1.0):
                watch.say("")
                events = shown_events(view.status, choice.everything)
                action = choice.key(key, len(view.status["pes"]), len(events))
                if action == QUIT:
                    return 0
                if action == SUSPEND:
                    terminal.suspend()
                elif action == PAUSE:
                    watch.pause()
                elif action == INJECT and events:
                    watch.inject(events[choice.event]["event"], choice.vcpu)
    if watch.failed:
        raise SdeiError(watch.ended)
    say(watch.ended)
    return 0
