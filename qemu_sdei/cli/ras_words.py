"""The words of `ras inject` behind the guest's name: sections with their fields, `+` between them.

    memory --physical-address 0x41e78000 --severity recoverable + pcie --device-id.bus-number 1

Which options a section has follows from its table, so its parser is made when its name is read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qemu_sdei.cli import ras_arm_words
from qemu_sdei.errors import CperError, UsageError
from qemu_sdei.printable import printable
from qemu_sdei.ras.entry import Entry, entry
from qemu_sdei.ras.from_text import given as given_fields
from qemu_sdei.ras.from_text import words
from qemu_sdei.ras.kinds import Kinds, Section, SectionKind, kind_named

AND: Final = "+"
_FIELD: Final = "field:"
"""Begins the name of what a section's own option sets."""
_OF_ENTRY: Final = ("severity", "fru_id", "fru_text", "timestamp", "entry_flags", "entry_revision")


class _Parser(argparse.ArgumentParser):
    """Raises `UsageError` in place of ending the process."""

    def error(self, message: str) -> Any:
        raise UsageError(f"{printable(message)} (see {self.prog} --help)")


@dataclass
class Said:
    """What was said."""

    general: argparse.Namespace
    """What goes for all sections; see `add_general`."""
    sections: list[tuple[Section, dict[str, Any]]] = field(default_factory=list)
    """With what is said of their entries."""

    def entries(self) -> list[Entry]:
        """The entries of a status block. Raises `UsageError`: one cannot be."""
        return [self._entry(section, about) for section, about in self.sections]

    @staticmethod
    def _entry(section: Section, about: dict[str, Any]) -> Entry:
        renamed = {name.removeprefix("entry_"): value for name, value in about.items()}
        return entry(section, renamed.pop("severity", "corrected"), **renamed)


def parse(given: Sequence[str], general: argparse.Namespace, kinds: Kinds, prog: str, add_general: Any) -> Said:
    """What these words say.

    Args:
        given: they.
        general: what was said in front of them; what is said in them is added.
        kinds: of sections.
        prog: what the command is called, for messages.
        add_general: adds the options that go for all sections to a parser.

    Raises:
        UsageError: they cannot be. `SystemExit`: help was asked for, and printed.
    """
    said = Said(general)
    of_all = _about(general)
    found: list[tuple[Section | None, dict[str, Any], SectionKind]] = []
    parts = _parts(given)
    for number, part in enumerate(parts):
        for name in _OF_ENTRY:
            if hasattr(general, name):
                setattr(general, name, None)
        kind, rest = _kind(part, kinds, prog, add_general)
        if kind is None and (number or len(parts) > 1):
            raise UsageError(f"{AND} stands between sections: say which section comes behind it")
        parser = _parser(kind, prog, add_general)
        parser.parse_args(rest, general)
        about = _about(general)
        if kind is None or not number:
            of_all = {**of_all, **about}
        if kind is not None:
            found.append((_section(kind, general), about, kind))
    said.sections = [(section, {**of_all, **about}) for section, about, _ in found if section is not None]
    return said


def _about(parsed: argparse.Namespace) -> dict[str, Any]:
    """What was said of an entry."""
    return {name: value for name in _OF_ENTRY if (value := getattr(parsed, name, None)) is not None}


def _parts(given: Sequence[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in given:
        if word == AND:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _kind(part: list[str], kinds: Kinds, prog: str, add_general: Any) -> tuple[SectionKind | None, list[str]]:
    """The section that is named in these words, and the words without its name; options of its own come behind it."""
    takes = _values_of_options(prog, add_general)
    at = 0
    while at < len(part):
        word = part[at]
        if not word.startswith("-") or word == "-":
            try:
                return kind_named(word, kinds), part[:at] + part[at + 1 :]
            except CperError as error:
                raise UsageError(f"{error} (see {prog} --help)") from None
        name, equals, _ = word.partition("=")
        at += 1 if equals else 1 + takes.get(name, 0)
        # An option whose value may be left out: `--expect-panic` is not followed by a section's name.
    return None, part


def _values_of_options(prog: str, add_general: Any) -> dict[str, int]:
    """How many words follow each option that goes for all sections."""
    parser = _Parser(prog=prog, add_help=False, allow_abbrev=False)
    return {
        name: 0 if action.nargs == 0 else 1
        for action in add_general(parser)
        for name in action.option_strings
        if action.nargs != "?"
    }


def _parser(kind: SectionKind | None, prog: str, add_general: Any) -> argparse.ArgumentParser:
    name = "KIND" if kind is None else kind.name
    parser = _Parser(
        prog=f"{prog} NAME {name}",
        usage=f"{prog} NAME {name} [options] [{AND} KIND [options]]...",
        allow_abbrev=False,
        description=None if kind is None else f"{kind.table.title} ({kind.table.source or kind.guid}). What is said is "
        "valid; validation bits, counts and lengths follow, unless they are said too. Values are numbers (0x...), or "
        "names, which need no more than their letters and digits.",
    )  # fmt: skip
    if kind is not None:
        group = parser.add_argument_group("fields")
        for word in words(kind.table):
            group.add_argument(
                f"--{word.name}",
                dest=_FIELD + word.name,
                action="append",
                metavar="V",
                help=word.about.replace("%", "%%"),
            )
        if kind.name == "arm":
            ras_arm_words.add(parser)
    add_general(parser)
    parser.add_argument("-q", "--quiet", action="store_true", default=argparse.SUPPRESS, help="say nothing but errors")
    return parser


def _section(kind: SectionKind, parsed: argparse.Namespace) -> Section:
    """The section of what was parsed, which is taken away: the next one begins anew."""
    fields = {
        name.removeprefix(_FIELD): value
        for name, value in vars(parsed).items()
        if name.startswith(_FIELD) and value is not None
    }
    more = ras_arm_words.given(parsed) if kind.name == "arm" else {}
    for name in [name for name in vars(parsed) if name.startswith((_FIELD, "arm_"))]:
        delattr(parsed, name)
    try:
        return kind(**{**given_fields(kind.table, fields), **more})
    except CperError as error:
        raise UsageError(f"{kind.name}: {error}") from None
