"""What the command line says of itself."""

from __future__ import annotations

import argparse
import shlex

import pytest

from qemu_sdei import blobs
from qemu_sdei.cli import make_parser
from qemu_sdei.cli.commands import COMMANDS, SENTENCES
from qemu_sdei.cli.examples import EXAMPLES
from tests.cli.conftest import Command


def test_help_has_each_command_once_in_80_columns(command: Command) -> None:
    text = command("--help").stdout
    assert max(map(len, text.splitlines())) <= 80
    for name in COMMANDS:
        assert sum(line.split()[:1] == [name] for line in text.splitlines() if line.startswith("  ")) == 1, name


def test_the_lines_of_help_are_those_of_the_commands() -> None:
    """`--help` does not read the commands in: what the reference prints of each is the same line."""
    (commands,) = (each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction))
    assert {action.dest: action.help for action in commands._choices_actions} == SENTENCES


def test_the_guests_that_we_have_are_listed(command: Command) -> None:
    text = " ".join(command("run", "--help").stdout.split())
    assert f"({', '.join(blobs.guests())})" in text


def test_each_command_s_help_has_two_examples_that_it_takes() -> None:
    parser = make_parser()
    (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    for name, examples in EXAMPLES.items():
        assert name in commands.choices
        text = commands.choices[name].format_help()
        assert max(map(len, text.splitlines())) <= 90, name
        assert text.endswith("".join(f"  qemu-sdei {example}\n" for example in examples))
        assert len(examples) == 2
        for example in examples:
            words = shlex.split(example)
            words = words[: words.index("--")] if "--" in words else words
            args, unknown = parser.parse_known_args(words)
            assert (args.subcommand, unknown) == (name, []), example


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["injct"], "there is no command 'injct'; did you mean 'inject'?"),
        (["xyzzy"], "there is no command 'xyzzy'; `qemu-sdei --help` lists them"),
        (["tables", "chek", "x"], "there is no command 'chek'; did you mean 'check'?"),
        (["status", "--wach"], "unrecognized arguments: --wach; did you mean '--watch'?"),
        (["tables", "check", "--seperate", "x"], "did you mean '--separate'?"),
        (["tables", "--format", "acpidmp"], "there is no choice 'acpidmp'; did you mean 'acpidump'?"),
    ],
)
def test_what_was_meant(command: Command, words: list[str], said: str) -> None:
    result = command(*words)
    assert result.returncode == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["status", "--js"], ["inject", "box", "--eve", "1"], ["tables", "check", "--sep", "x"]]
)
def test_no_option_is_abbreviated(command: Command, words: list[str]) -> None:
    """An abbreviation that works today means something else when there is one more option."""
    result = command(*words)
    assert result.returncode == 2


@pytest.mark.parametrize("name", ["list", "ps", "ls"])
def test_list_has_three_names(command: Command, name: str) -> None:
    assert (command(name).returncode, command(name).stdout) == (0, "no guest is running\n")
    assert (command(name, "-q").returncode, command(name, "-q").stdout) == (0, "")


@pytest.mark.parametrize(
    "words",
    [["inject", "--event", "1"], ["nmi"], ["regs"], ["save", "somewhere"], ["attach"], ["stop"], ["ras", "sources"]],
    ids=" ".join,
)
def test_without_a_name_the_only_guest_is_meant(command: Command, words: list[str]) -> None:
    result = command(*words)
    assert result.returncode == 2
    assert "no guest is running" in result.stderr
