"""The `qemu-sdei` command: one file a subcommand, each with `register(subparsers)` and `run(args) -> exit code`.

Exit codes: 0 done, 1 it went wrong, 2 the user's input cannot be (one line says why), 255 the guest panicked,
128+N ended by signal N. `run ... -- COMMAND` returns the command's own status.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Final, NoReturn

from qemu_sdei import __version__
from qemu_sdei.cli.commands import ALIASES, COMMANDS, module_of
from qemu_sdei.cli.examples import epilog
from qemu_sdei.cli.output import messages_wanted, say
from qemu_sdei.cli.screen import screened
from qemu_sdei.cli.signals import Terminated, catching_signals
from qemu_sdei.cli.streams import OutputError, abandon_output, open_standard_files
from qemu_sdei.cli.usage import Commands, Parser, TopParser, did_you_mean
from qemu_sdei.errors import SdeiError, UsageError
from qemu_sdei.printable import message_lines

TRACEBACK: Final = "QEMU_SDEI_TRACEBACK"
"""Environment variable: whoever looks for a fault of ours sees where it is."""


def make_parser(wanted: Iterable[str] = COMMANDS) -> TopParser:
    """The command line's parser: the `wanted` commands whole, of the others only names and lines of help. What those
    need is not read in.
    """
    parser = TopParser(
        prog="qemu-sdei",
        description="Firmware services (SDEI, PSCI, SMCCC) for Arm guests on stock QEMU, and events from the host.",
    )
    parser.add_argument("--version", action="version", version=f"qemu-sdei {__version__}")
    subparsers = parser.add_subparsers(
        dest="subcommand", metavar="COMMAND", required=True, parser_class=Parser, action=Commands
    )
    modules = {module_of(name) for name in wanted}
    for name in COMMANDS:
        if name in subparsers.choices:
            continue
        if module_of(name) in modules:
            import_module(module_of(name)).register(subparsers)
        else:
            subparsers.add_parser(name)
    for name, command in subparsers.choices.items():
        command.epilog = epilog(name)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit code."""
    open_standard_files()
    with screened():
        return _guarded(sys.argv[1:] if argv is None else list(argv))


def _main(words: list[str]) -> int:
    command: list[str] | None = None
    if "--" in words and words[0] in ("run", "exec", "initramfs"):
        # Everything behind it is the guest's: argparse must not look at it.
        split = words.index("--")
        words, command = words[:split], words[split + 1 :]
    if words and words[0] in ALIASES:
        words = [ALIASES[words[0]], *words[1:]]
    parser = make_parser(words[:1])
    try:
        args, unknown = parser.parse_known_args(words)
        if unknown:
            _refuse(parser, args.subcommand, words, unknown)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    args.guest_command = command
    if not messages_wanted(args):
        return int(args.run(args))
    from qemu_sdei.cli.debug_log import messages_shown

    with messages_shown():
        return int(args.run(args))


def _refuse(parser: Parser, subcommand: str, words: list[str], unknown: list[str]) -> NoReturn:
    """As argparse itself does it, but with the name of the subcommand whose help is wanted now, and what was meant."""
    hint = ""
    if unknown[0].startswith("-"):
        hint = did_you_mean(unknown[0].partition("=")[0], parser.options(words))
    elif subcommand == "run":
        hint = f"; for a command in the guest: run [options] -- {' '.join(unknown)}"
    Parser(prog=f"qemu-sdei {subcommand}").error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


def _guarded(words: list[str]) -> int:
    try:
        with catching_signals():
            code = _main(words)
            sys.stdout.flush()
            return code
    except UsageError as error:
        say(*message_lines(f"qemu-sdei: error: {error}"), error=True)
        return error.exit_code
    except OutputError as error:
        abandon_output()
        say(f"qemu-sdei: error: {error}", error=True)
        return error.exit_code
    except SdeiError as error:
        say(*message_lines(f"qemu-sdei: {error}"), error=True)
        return error.exit_code
    except Terminated as end:
        for note in getattr(end, "__notes__", ()):
            say(f"qemu-sdei: {note}", error=True)
        return 128 + end.number
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        abandon_output()
        return 141
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """What nobody thought of, in one line: of the system (a file, memory), or a fault of ours."""
    if os.environ.get(TRACEBACK):
        raise error
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror or str(error)
        say(f"qemu-sdei: error: {what} ({TRACEBACK}=1 shows where)", error=True)
    else:
        words = f"{type(error).__name__}: {error}"
        say(f"qemu-sdei: internal error: {words} (a fault of qemu-sdei; {TRACEBACK}=1 shows where)", error=True)
    return 1
