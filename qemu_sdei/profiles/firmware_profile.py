"""A firmware profile: rules with a name, and what they reproduce. Read from TOML, shipped or a user's own."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from qemu_sdei import untrusted_files
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.profiles.matching import names_of
from qemu_sdei.profiles.rule import Rule

SPEC: Final = "spec"
"""The firmware as it is without a profile."""
OWN: Final = "own"
"""Name of what has rules and was given no other."""
MAX_RULES: Final = 64
MAX_FILE_SIZE: Final = 256 << 10
_MAX_TEXT: Final = 2000
_MAX_BASES: Final = 8
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_KEYS: Final = ("summary", "reproduces", "not-reproduced", "base", "rule")


@dataclass(frozen=True)
class FirmwareProfile:
    """A firmware profile.

    Attributes:
        name: what it is called by.
        rules: in the order in which they are asked; rule 1 is the first.
        summary: what such firmware does, in a line.
        reproduces: where that was seen.
        not_reproduced: what of it is not in the rules.
    """

    name: str = SPEC
    rules: tuple[Rule, ...] = ()
    summary: str = ""
    reproduces: str = ""
    not_reproduced: str = ""

    def __post_init__(self) -> None:
        """Check what rules must be together. Raises `UsageError`."""
        if _NAME.fullmatch(self.name) is None:
            raise UsageError(f"{self.name[:40]!r}: a profile's name is 1 to 32 of a-z, 0-9, -, and begins with no -")
        if len(self.rules) > MAX_RULES:
            raise UsageError(f"{len(self.rules)} rules: a profile has at most {MAX_RULES}")
        if self.rules and self.name == SPEC:
            raise UsageError(f"{SPEC!r} is the firmware without rules: give the profile another name")
        made = names_of(self.rules)
        for number, rule in enumerate(self.rules, 1):
            for word in ("marked", "target-marked", "unmarks"):
                if word in rule.values and rule.values[word] not in made:
                    raise UsageError(f"rule {number}: {word}={rule.values[word]}, and no rule marks so")
        _check_answers(self.rules)

    @property
    def misbehaves(self) -> bool:
        """Whether it has a rule."""
        return bool(self.rules)

    def with_rules(self, rules: Sequence[Rule]) -> FirmwareProfile:
        """The same with these rules behind its own. Raises `UsageError`: they contradict them."""
        name = self.name if self.rules or not rules or self.name != SPEC else OWN
        return replace(self, name=name, rules=(*self.rules, *rules))

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "summary": self.summary,
            "reproduces": self.reproduces,
            "not_reproduced": self.not_reproduced,
            "rules": [{"rule": rule.text, "why": rule.why} for rule in self.rules],
        }

    @classmethod
    def of_document(cls, document: object) -> FirmwareProfile:
        """What `document` wrote. Raises `ProtocolError`: it is damaged, or of another version's vocabulary."""
        try:
            if not isinstance(document, dict) or len(document["rules"]) > MAX_RULES:
                raise ValueError("it is not an object with up to 64 rules")
            texts = {key: _text(document[key], key) for key in ("name", "summary", "reproduces", "not_reproduced")}
            rules = [(_text(rule["rule"], "rule"), _text(rule["why"], "why")) for rule in document["rules"]]
            return cls(**texts, rules=tuple(Rule.of_text(text, why) for text, why in rules))
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"firmware profile: {error}") from None
        except UsageError as error:
            raise ProtocolError(f"firmware profile: {error}") from None


def _check_answers(rules: Sequence[Rule]) -> None:
    """Two rules that answer the same call under the same conditions: the second would never be seen."""
    seen: dict[tuple[Any, ...], int] = {}
    for number, rule in enumerate(rules, 1):
        if "returns" not in rule.values:
            continue
        key = (rule.functions, tuple(sorted((word, repr(value)) for word, value in rule.conditions.items())))
        if key in seen:
            raise UsageError(
                f"rules {seen[key]} and {number} contradict each other: both answer {rule.text.split()[0]} under the "
                "same conditions"
            )
        seen[key] = number


SPEC_PROFILE: Final = FirmwareProfile()


def load(wanted: str | Path) -> FirmwareProfile:
    """The profile of this name, or in this TOML file (a name with a `/`, or that ends in `.toml`).

    Raises:
        UsageError: there is none, or it is wrong; the message says where and what.
    """
    text = str(wanted)
    if "/" in text or text.endswith(".toml"):
        return _from_file(Path(text), ())
    return shipped(text)


@cache
def shipped(name: str) -> FirmwareProfile:
    """A profile that comes with the program. Raises `UsageError`: there is none of this name."""
    if name == SPEC:
        return SPEC_PROFILE
    if name not in names():
        raise UsageError(
            f"there is no firmware profile {name[:40]!r}; there are {', '.join(names())}. A file of your own is named "
            "by a path that ends in .toml"
        )
    file = resources.files("qemu_sdei").joinpath(f"data/firmware/{name}.toml")
    return _parse(file.read_bytes(), name, f"{name}.toml", None, (name,))


@cache
def names() -> tuple[str, ...]:
    """Names of the profiles that come with the program."""
    folder = resources.files("qemu_sdei").joinpath("data/firmware")
    found = sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))
    return (SPEC, *found)


def _from_file(path: Path, above: tuple[str, ...]) -> FirmwareProfile:
    path = path.resolve()
    name = re.sub("[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:32].strip("-") or OWN
    where = f"firmware profile {path}"
    try:
        data = untrusted_files.read(path, MAX_FILE_SIZE)
    except UsageError as error:
        raise UsageError(f"firmware profile: {error}") from None
    if str(path) in above:
        raise UsageError(f"{where}: it is its own base")
    name = OWN if name == SPEC else name
    return _parse(data, name, str(path), path.parent, (*above, str(path)))


def _parse(data: bytes, name: str, source: str, folder: Path | None, above: tuple[str, ...]) -> FirmwareProfile:
    where = f"firmware profile {source}: "
    try:
        document = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}not valid TOML: {error}") from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number too long for int()
        raise UsageError(f"{where}not valid TOML: {type(error).__name__}") from None
    try:
        return _profile(document, name, folder, above)
    except UsageError as error:
        text = str(error)
        raise UsageError(text if text.startswith("firmware profile ") else where + text) from None


def _profile(document: Mapping[str, Any], name: str, folder: Path | None, above: tuple[str, ...]) -> FirmwareProfile:
    for key in document:
        if key not in _KEYS:
            raise UsageError(f"unknown key {key[:40]!r} (known: {', '.join(_KEYS)})")
    bases = document.get("base", [])
    tables = document.get("rule", [])
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases) or len(bases) > _MAX_BASES:
        raise UsageError(f"base is a list of up to {_MAX_BASES} names of profiles or files")
    if len(above) > _MAX_BASES:
        raise UsageError(f"bases of bases, more than {_MAX_BASES} deep")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError("rules are written as [[rule]] tables")
    if len(tables) > MAX_RULES:
        raise UsageError(f"{len(tables)} rules: a profile has at most {MAX_RULES}")
    rules: list[Rule] = []
    for base in bases:
        if folder is not None and ("/" in base or base.endswith(".toml")):
            rules += _from_file(folder / base, above).rules
        else:
            if base in above:
                raise UsageError(f"{base} is its own base")
            rules += shipped(base).rules
    first = len(rules) + 1
    for number, table in enumerate(tables, first):
        try:
            rules.append(Rule.of_table(table))
        except UsageError as error:
            raise UsageError(f"rule {number}: {error}") from None
    texts = {key.replace("-", "_"): _text(document.get(key, ""), key) for key in _KEYS[:3]}
    if not rules:
        raise UsageError("it has no rule; the firmware without any is called spec")
    return FirmwareProfile(name=name, rules=tuple(rules), **texts)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.replace("\n", " ").isprintable():
        raise UsageError(f"{what} is text of at most {_MAX_TEXT} printable characters")
    return value
