"""The command line's reference, from its parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from qemu_sdei.cli import make_parser
from scripts.docgenlib.page import note


def cli() -> str:
    """The command line's reference, from the parser itself."""
    parser = make_parser()
    out = [
        "# Command line",
        "",
        note("qemu_sdei/cli"),
        "",
        f"{parser.description} What commands return is in [exit-codes.md](exit-codes.md); each takes `--help`.",
        "",
        "| command | what |",
        "|---|---|",
    ]
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert isinstance(commands.choices, dict)
    helps = {action.dest: action.help or "" for action in commands._choices_actions}
    out += [f"| [`{name}`](#qemu-sdei-{name}) | {helps[name]} |" for name in commands.choices]
    for name, command in commands.choices.items():
        out += _command(f"## qemu-sdei {name}", command)
    return "\n".join(out) + "\n"


def _command(title: str, command: argparse.ArgumentParser) -> list[str]:
    """A command's section, and those of the commands below it."""
    out = ["", title, "", command.description or "", "", f"    {usage_of(command)}", "", *_options(command)]
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                out += _command(f"#{title} {name}", below)
    return out


def usage_of(command: argparse.ArgumentParser) -> str:
    """How a command is typed."""
    if command.usage is not None:
        return command.usage % {"prog": command.prog}
    positionals = [_positional(action) for action in command._actions if not action.option_strings]
    required = [_option(action) for action in command._actions if action.option_strings and action.required]
    return " ".join([command.prog, "[options]", *required, *positionals])


def _positional(action: argparse.Action) -> str:
    return "|".join(map(str, action.choices)) if action.choices else str(action.metavar or action.dest)


def _option(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return max(action.option_strings, key=len) + value


def names_of(action: argparse.Action) -> str:
    """All words of an option with its value, the short ones first, or the name of an argument."""
    if not action.option_strings:
        return _positional(action)
    return ", ".join([*(name for name in action.option_strings if not name.startswith("--")), *_long(action)])


def _long(action: argparse.Action) -> list[str]:
    """The long words of an option; of one that is on or off both: --pad-memory, --no-pad-memory."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return list(action.option_strings)
    return [_option(action)]


def _options(command: argparse.ArgumentParser) -> Iterator[str]:
    yield "| option | what |"
    yield "|---|---|"
    for group in command._action_groups:
        for action in group._group_actions:
            if "--help" in action.option_strings or isinstance(action, argparse._SubParsersAction):
                continue
            names = names_of(action)
            help_text = (action.help or "") % {"prog": command.prog} if "%(" in (action.help or "") else action.help
            yield f"| `{names.replace('|', chr(92) + '|')}` | {help_text} |"
