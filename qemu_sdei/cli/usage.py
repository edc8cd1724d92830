"""What the command line says of itself: errors in one line with what was meant, commands in groups, examples.

Nothing here imports a command: `--help` must be quick.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from qemu_sdei.cli.commands import ALIASES, GROUPS, SENTENCES
from qemu_sdei.printable import printable

_CLOSE: Final = 0.6
_COLUMNS: Final = 80


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the whole usage in front of it; takes no abbreviations.

    One that takes a name, or a command below it (`trace NAME`, `trace diff A B`), goes by its first word.
    """

    _below = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", Formatter)
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it."""
        commands = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        self._below = bool(args) and any(args[0] in action.choices for action in commands)
        return super().parse_known_args(args, namespace)

    def _get_positional_actions(self) -> list[argparse.Action]:
        found = super()._get_positional_actions()
        commands: list[argparse.Action] = [one for one in found if isinstance(one, argparse._SubParsersAction)]
        if len(commands) in (0, len(found)):
            return found
        return commands if self._below else [one for one in found if one not in commands]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(each) for each in action.choices]
            what = "command" if isinstance(action, argparse._SubParsersAction) else "choice"
            meant = did_you_mean(str(value), [*known, *(ALIASES if what == "command" else ())])
            listed = f"choose from {', '.join(known)}" if len(known) <= 12 else "`qemu-sdei --help` lists them"
            raise argparse.ArgumentError(action, f"there is no {what} {str(value)!r}{meant or f'; {listed}'}")

    def error(self, message: str) -> NoReturn:
        """Print `message` and exit with 2."""
        self.exit(2, f"{self.prog}: error: {printable(message)} (see {self.prog} --help)\n")

    def print_help(self, file: Any = None) -> None:
        """Print the help; raises what writing raises. (`argparse` takes a closed pipe for a success.)"""
        (file or sys.stdout).write(self.format_help())

    def options(self, words: Iterable[str]) -> list[str]:
        """All options of the command that `words` name, such as `tables check`."""
        parser: argparse.ArgumentParser = self
        found = list(parser._option_string_actions)
        for word in words:
            below = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
            if not below or word not in below[0].choices:
                continue
            parser = below[0].choices[word]
            found = list(parser._option_string_actions)
        return found


class Formatter(argparse.HelpFormatter):
    """Help of 80 columns at most, in which the lines of examples stay lines."""

    def __init__(self, prog: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(prog, *args, **kwargs)
        self._width = min(self._width, _COLUMNS - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return "\n".join(indent + line for line in text.splitlines())
        return super()._fill_text(text, width, indent)


class Commands(argparse._SubParsersAction):  # type: ignore[type-arg]
    """The subcommands; a line of help that they do not bring themselves is the one of the table."""

    def add_parser(self, name: str, **words: Any) -> Any:
        """As argparse does it."""
        words.setdefault("help", SENTENCES.get(name, ""))
        return super().add_parser(name, **words)


class TopParser(Parser):
    """The parser of the whole command line: its help has the commands in groups."""

    def format_help(self) -> str:
        """Usage, commands by group with a line each, options."""
        commands = next(action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, [action for action in self._actions if action is not commands], [])
        formatter.add_text(self.description)
        lines = [formatter.format_help().replace("\n\n", " COMMAND ...\n\n", 1)]
        for group, members in GROUPS.items():
            lines.append(f"{group}:")
            lines += [f"  {name:<13}{_short(sentence)}" for name, sentence in members.items()]
            lines.append("")
        same = ", ".join(f"{alias} = {name}" for alias, name in ALIASES.items())
        lines += [f"{same}. `qemu-sdei COMMAND --help` has options and examples,", "`qemu-sdei --version` the version."]
        return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    """A command's line of help, as much of it as fits: whole words."""
    room = _COLUMNS - 16
    if len(text) <= room:
        return text
    return text[: room - 3].rsplit(" ", 1)[0].rstrip(",;:") + " ..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'inject'?`, or "" if nothing is like it."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=_CLOSE)
    return f"; did you mean {found[0]!r}?" if found else ""
