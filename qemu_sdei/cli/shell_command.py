"""`qemu-sdei shell`: a Python prompt with a running guest bound to `guest`."""

from __future__ import annotations

import argparse
import code
import importlib
import io
import signal
import sys
from typing import Any, Final

from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.output import add_verbosity, say
from qemu_sdei.cli.screen import unscreened
from qemu_sdei.cli.script_errors import shown
from qemu_sdei.errors import SdeiError

_HELP: Final = "guest.status(), .inject(0x324, wait=True), .exec('dmesg'), .trace(), .explain(), .firmware, .nmi(), ..."
_FAILED: Final = 1


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "shell",
        description="A Python prompt with the running guest bound to `guest`: IPython if it is installed, else "
        "Python's own, with completion by the Tab key. Ctrl-C ends what runs at the prompt, Ctrl-D leaves the prompt; "
        "the guest runs on. With -c, or if standard input is not a terminal, a Python program is run without a prompt; "
        "an exception in it gives exit code 1.",
    )
    add_guest(parser)
    parser.add_argument("-c", dest="program", metavar="PROGRAM", help="run this Python program, with no prompt")
    parser.add_argument("--plain", action="store_true", help="Python's own prompt, also where IPython is installed")
    add_verbosity(parser, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei.guest.neighbour import Neighbour

    names = {"__name__": "__main__", "guest": Neighbour(args.guest)}
    if args.program is not None:
        return _run_program(args.program, "-c", names)
    if not sys.stdin.isatty():
        return _run_program(sys.stdin.read(), "<stdin>", names)
    if not args.quiet:
        say(repr(names["guest"]), _HELP)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # of the prompt, and not of this command
    try:
        with unscreened():
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(line_buffering=True)  # the commands' own output has no lines to wait for
            if args.plain or not _in_ipython(names):
                _Prompt(names).interact(banner="", exitmsg="")
    finally:
        signal.signal(signal.SIGINT, before)
    return 0


def _run_program(text: str, name: str, names: dict[str, Any]) -> int:
    try:
        with unscreened():
            exec(compile(text, name, "exec"), names)
    except SdeiError:
        raise
    except Exception as error:
        say(*shown(error), error=True)
        return _FAILED
    return 0


def _in_ipython(names: dict[str, Any]) -> bool:
    """Whether there is an IPython; its prompt has ended then."""
    try:
        ipython = importlib.import_module("IPython")
    except ImportError:
        return False
    ipython.start_ipython(argv=["--no-banner", "--no-confirm-exit"], user_ns=names)
    return True


class _Prompt(code.InteractiveConsole):
    """Python's own prompt, with completion; an error of ours is its words, and no traceback."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__(names)
        try:
            import readline
            import rlcompleter
        except ImportError:  # a Python without them has no completion
            return
        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")

    def showtraceback(self) -> None:
        """See `code.InteractiveInterpreter`."""
        error = sys.exc_info()[1]
        if isinstance(error, SdeiError):
            say(*str(error).split("\n"), error=True)
        else:
            super().showtraceback()
