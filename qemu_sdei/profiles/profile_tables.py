"""The tables of docs/reference/firmware-profiles.md: what a rule can say, and the profiles that there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qemu_sdei.profiles import firmware_profile
from qemu_sdei.profiles.vocabulary import ACTIONS, CONDITIONS, OCCASIONS, Kind, Occasion, choices_of


def occasions() -> str:
    """When a rule can act."""
    rows = [
        ("a function" if row.occasion is Occasion.CALL else f"`{row.occasion.value}`", row.what, row.whose)
        for row in OCCASIONS
    ]
    return _table(("`on`", "when", "the vCPU that it is about"), rows)


def conditions() -> str:
    """What a rule can ask."""
    return _table(
        ("condition", "value", "at", "holds if"),
        [(f"`{row.word}`", _value(row.word, row.kind), _at(row.occasions), row.what) for row in CONDITIONS],
    )


def actions() -> str:
    """What a rule can do, and at what: each with its clause or reason."""
    rows = []
    for row in ACTIONS:
        at = _at(row.occasions)
        if row.only:
            at = at.replace("calls", f"calls of {', '.join(name.removeprefix('SDEI_') for name in row.only)}")
        rows.append((f"`{row.word}`", _value(row.word, row.kind), at, row.what, row.against))
    return _table(("action", "value", "at", "what it does", "against, or why"), rows)


def profiles() -> str:
    """The profiles that come with the program."""
    rows = []
    for name in firmware_profile.names():
        profile = firmware_profile.load(name)
        if profile.misbehaves:
            reproduces = " ".join(profile.reproduces.split())
            missing = " ".join(profile.not_reproduced.split())
            rows.append((f"`{name}`", f"{len(profile.rules)}", profile.summary, reproduces, missing))
    return _table(("profile", "rules", "what it does", "reproduces", "not in it"), rows)


def _value(word: str, kind: Kind) -> str:
    if kind is Kind.WORDS:
        return ", ".join(f"`{choice}`" for choice in choices_of(word))
    form: str = kind.value
    return form


def _at(occasions: Sequence[Occasion]) -> str:
    if set(occasions) == set(Occasion):
        return "all"
    return ", ".join("calls" if occasion is Occasion.CALL else occasion.value for occasion in occasions)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines
    ).replace("| --- | ", "|---|")
