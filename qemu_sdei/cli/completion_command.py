"""`qemu-sdei completion`: completion for bash, zsh or tcsh, from the same parser that reads the command line."""

from __future__ import annotations

import argparse
from typing import Any, Final

from qemu_sdei.cli import completion_words
from qemu_sdei.cli.output import print_data
from qemu_sdei.errors import UsageError

_KINDS: Final = {
    "FILE": "FILE",
    "A": "FILE",
    "B": "FILE",
    "K": "FILE",
    "I": "FILE",
    "PATH[:GUEST]": "FILE",
    "DIR": "DIR",
    "NAME": "guests",
    "SRC": "guests",
}
"""What an option's or argument's value is, by its metavar."""
_NAMES: Final = "qemu-sdei list -q 2>/dev/null"
_WORDS: Final = "qemu-sdei completion --words {kind} 2>/dev/null"
_FUNCTION: Final = {
    "bash": """
_qemu_sdei_{kind}() {{
  compgen -W "$({command})" -- "$1"
}}
""",
    "zsh": """
_qemu_sdei_{kind}() {{
  compadd -- ${{(f)"$({command})"}}
}}
""",
}
"""How a shell asks for words. tcsh: shtab has no way to call a function there."""


def _preamble(shell: str) -> str:
    """A function for each kind of words."""
    function = _FUNCTION.get(shell, "")
    commands = {"guests": _NAMES} | {kind: _WORDS.format(kind=kind) for kind in completion_words.KINDS}
    return "".join(function.format(kind=kind, command=command) for kind, command in commands.items())


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "completion",
        description='Print a completion script. For bash: eval "$(qemu-sdei completion bash)"; for zsh the same, '
        "after compinit.",
    )
    parser.add_argument("shell", nargs="?", choices=("bash", "zsh", "tcsh"), help="which shell")
    parser.add_argument(
        "--words",
        metavar="KIND",
        choices=tuple(completion_words.KINDS),
        help="print what a value can be now, as those scripts ask",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    if (args.shell is None) == (args.words is None):
        raise UsageError("completion: name a shell (bash, zsh, tcsh), or give --words KIND")
    if args.words is not None:
        print_data("".join(f"{word}\n" for word in completion_words.words(args.words)))
        return 0
    import shtab

    from qemu_sdei.cli import make_parser

    parser = make_parser()
    kinds: dict[str, Any] = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
    for kind in ("guests", *completion_words.KINDS):
        kinds[kind] = {shell: f"_qemu_sdei_{kind}" if shell in _FUNCTION else "" for shell in ("bash", "zsh", "tcsh")}
    _mark(parser, kinds)
    print_data(shtab.complete(parser, shell=args.shell, preamble=_preamble(args.shell)) + "\n")
    return 0


def _mark(parser: argparse.ArgumentParser, kinds: dict[str, Any]) -> None:
    """Say what the values of options are, by their metavar or name: files, directories, words that are asked for."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _mark(child, kinds)
        elif action.choices is None and action.nargs != 0:
            name = max(action.option_strings, key=len, default="")
            if kind := completion_words.OPTIONS.get(name) or _KINDS.get(str(action.metavar)):
                action.complete = kinds[kind]  # type: ignore[attr-defined]
