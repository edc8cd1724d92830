"""`qemu-sdei completion`: completion for bash, zsh or tcsh, from the same parser that reads the command line."""

from __future__ import annotations

import argparse
from typing import Any, Final

from qemu_sdei.cli.output import print_data

_KINDS: Final = {
    "FILE": "FILE",
    "A": "FILE",
    "B": "FILE",
    "K": "FILE",
    "I": "FILE",
    "PATH[:GUEST]": "FILE",
    "DIR": "DIR",
    "NAME": "GUEST",
}
"""What an option's or argument's value is, by its metavar."""
# tcsh: shtab has no way to call a function there.
_GUEST: Final = {"bash": "_qemu_sdei_guests", "zsh": "_qemu_sdei_guests", "tcsh": ""}
_NAMES: Final = "qemu-sdei list -q 2>/dev/null"
_PREAMBLE: Final = {
    "bash": f"""
_qemu_sdei_guests() {{
  compgen -W "$({_NAMES})" -- "$1"
}}
""",
    "zsh": f"""
_qemu_sdei_guests() {{
  compadd -- ${{(f)"$({_NAMES})"}}
}}
""",
}


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "completion",
        description='Print a completion script. For bash: eval "$(qemu-sdei completion bash)"; for zsh the same, '
        "behind compinit.",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="which shell")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    import shtab

    from qemu_sdei.cli import make_parser

    parser = make_parser()
    _mark(parser, {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "GUEST": _GUEST})
    print_data(shtab.complete(parser, shell=args.shell, preamble=_PREAMBLE.get(args.shell, "")) + "\n")
    return 0


def _mark(parser: argparse.ArgumentParser, kinds: dict[str, Any]) -> None:
    """Say what the values of options are, by their metavar: files, directories, names of running guests."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _mark(child, kinds)
        elif action.choices is None and (kind := _KINDS.get(str(action.metavar))):
            action.complete = kinds[kind]  # type: ignore[attr-defined]
