"""One rule of a firmware profile: when it acts, and what it does then. Read from text or TOML, and checked."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from qemu_sdei.errors import UsageError
from qemu_sdei.profiles import sites, values
from qemu_sdei.profiles.sites import Site, Sites
from qemu_sdei.profiles.vocabulary import (
    EVENT_ARGUMENT,
    EXCLUDED,
    INNERMOST,
    OF_ACTION,
    OF_CONDITION,
    TARGET_ARGUMENT,
    Kind,
    Occasion,
)
from qemu_sdei.services.function_names import NAMES, function_name
from qemu_sdei.smccc.ids import FUNCTION_MASK

MAX_TEXT: Final = 800
MAX_WHY: Final = 400
_SMC64: Final = 0x4000_0000
_IDS: Final[dict[str, tuple[int, ...]]] = {}
for _id, _name in NAMES.items():
    _IDS[_name] = (*_IDS.get(_name, ()), _id)
_FAST: Final = 1 << 31
_BOTH_WIDTHS: Final = frozenset(
    (
        *("CPU_SUSPEND", "CPU_ON", "AFFINITY_INFO", "MIGRATE", "MIGRATE_INFO_UP_CPU", "CPU_DEFAULT_SUSPEND"),
        *("NODE_HW_STATE", "SYSTEM_SUSPEND", "PSCI_STAT_RESIDENCY", "PSCI_STAT_COUNT", "SYSTEM_RESET2"),
        *("MEM_PROTECT_CHECK_RANGE", "SYSTEM_OFF2", "TRNG_RND"),
    )
)
"""Functions with a 64-bit form of the same number (DEN0022 5.1, DEN0098)."""
_DONE_ELSEWHERE: Final = frozenset(f"SDEI_{name}" for name in ("EVENT_COMPLETE", "EVENT_COMPLETE_AND_RESUME"))


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        text: as it is written: an occasion, and `word=value` of each condition and action.
        occasion: when it can act.
        functions: ids of the calls that it is about, in both widths; none at other occasions.
        values: of each condition and action the value (`values.py`).
        why: what it stands for, for people.
    """

    text: str
    occasion: Occasion
    functions: frozenset[int]
    values: Mapping[str, Any] = field(hash=False)
    why: str = ""

    @property
    def conditions(self) -> dict[str, Any]:
        """What it asks, `nth` and `each-vcpu` among it."""
        return {word: value for word, value in self.values.items() if word in OF_CONDITION}

    @property
    def actions(self) -> dict[str, Any]:
        """What it does."""
        return {word: value for word, value in self.values.items() if word in OF_ACTION}

    @property
    def does(self) -> str:
        """What it does, in the words of the rule."""
        return " ".join(word for word in self.text.split()[1:] if word.partition("=")[0] in OF_ACTION)

    @property
    def sites(self) -> dict[str, Sites]:
        """Of each condition that asks for places in the guest's code, these."""
        return {word: value for word, value in self.conditions.items() if OF_CONDITION[word].kind is Kind.SITES}

    @property
    def unplaced(self) -> list[str]:
        """Functions that it names, and of which nobody has said where they are."""
        return [site.name for found in self.sites.values() for site in found if site.unplaced]

    def placed(self, place: Callable[[str], Iterable[Site]]) -> Rule:
        """The same with the places of functions that it names: those that `place` gives for a name.

        Raises:
            UsageError: `place` does, or the rule becomes too long.
        """
        words = self.text.split()
        for word, wanted in self.sites.items():
            found = [place(site.name) if site.unplaced else (site,) for site in wanted]
            text = ",".join(sites.written(site) for some in found for site in some)
            words = [f"{word}={text}" if old.startswith(f"{word}=") else old for old in words]
        return Rule.of_text(" ".join(words), self.why)

    @classmethod
    def of_text(cls, text: str, why: str = "") -> Rule:
        """The rule that a line is: "CPU_OFF nth=1 handler=yes returns=DENIED".

        Raises:
            UsageError: it is none, names what there is not, or contradicts itself.
        """
        if len(text) > MAX_TEXT or not text.isascii() or not text.isprintable():
            raise UsageError(f"a rule is one line of at most {MAX_TEXT} plain characters")
        on, *words = text.split()[:MAX_TEXT] or [""]
        pairs = []
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or not value:
                raise UsageError(f"{word[:60]!r}: conditions and actions are written as word=value")
            pairs.append((name, value))
        return cls._made(on, pairs, why)

    @classmethod
    def of_table(cls, table: Mapping[str, Any]) -> Rule:
        """The rule that a table of a TOML file is. Raises `UsageError` as `of_text`."""
        on, why = table.get("on", ""), table.get("why", "")
        if not isinstance(on, str) or not isinstance(why, str) or not on:
            raise UsageError('`on` says when it acts, as on = "CPU_OFF"; `why` is text')
        pairs = [(name, _written(name, value)) for name, value in table.items() if name not in ("on", "why")]
        text = " ".join([on, *(f"{name}={value}" for name, value in pairs)])
        if len(text) > MAX_TEXT or not text.isascii() or not text.isprintable() or len(text.split()) != len(pairs) + 1:
            raise UsageError(f"a rule has at most {MAX_TEXT} plain characters, and no space in a value")
        return cls._made(on, pairs, why)

    @classmethod
    def _made(cls, on: str, pairs: list[tuple[str, str]], why: str) -> Rule:
        if len(why) > MAX_WHY or not why.isprintable():
            raise UsageError(f"`why` is one line of at most {MAX_WHY} characters")
        occasion, functions = occasion_of(on)
        found: dict[str, Any] = {}
        for name, value in pairs:
            row = OF_CONDITION.get(name) or OF_ACTION.get(name)
            if row is None:
                raise UsageError(
                    f"{name[:40]!r} is no condition and no action{_near(name, (*OF_CONDITION, *OF_ACTION))}"
                )
            if name in found:
                raise UsageError(f"{name} is there twice")
            if occasion not in row.occasions:
                raise UsageError(f"{name} cannot stand at {on[:60]}")
            found[name] = values.read(name, row.kind, value)
        _check(on, occasion, functions, found)
        text = " ".join([on, *(f"{name}={value}" for name, value in pairs)])
        return cls(text, occasion, functions, found, why)


def occasion_of(on: str) -> tuple[Occasion, frozenset[int]]:
    """The occasion that `on` names, and the ids of its functions. Raises `UsageError`: it names none."""
    for occasion in Occasion:
        if on == occasion.value and occasion is not Occasion.CALL:
            return occasion, frozenset()
    return Occasion.CALL, frozenset(_functions(on))


def _functions(on: str) -> Iterable[int]:
    if re.fullmatch("0[xX][0-9a-fA-F]{1,8}", on):
        number = int(on, 16)
        if not number & _FAST or number & FUNCTION_MASK != number:
            raise UsageError(f"{on} is not a function id of a fast call (DEN0028 2.5): bit 31 is 1, bit 16 is 0")
        return (number,)
    named = [name for name in (on, f"SDEI_{on}", on.removeprefix("PSCI_")) if name in _IDS]
    if not named and any(letter in on for letter in "*?["):
        patterns = (on, f"SDEI_{on}")
        named = [name for name in _IDS if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if not named:
        known = dict.fromkeys((*_IDS, *(name.removeprefix("SDEI_") for name in _IDS)))
        others = [occasion.value for occasion in Occasion if occasion is not Occasion.CALL]
        raise UsageError(
            f"{on[:60]!r} is no function and no occasion{_near(on, known)}; beside calls there are {', '.join(others)}"
        )
    ids = {number for name in named for number in _IDS[name]}
    return ids | {number | _SMC64 for name in named if name in _BOTH_WIDTHS for number in _IDS[name]}


def _near(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name.upper() if name.isupper() else name, list(known), 2)
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def _written(name: str, value: object) -> str:
    """A value of TOML as a rule's text has it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value.bit_length() <= 64:
        return str(value)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        return ",".join(_written(name, item) for item in value)
    raise UsageError(f"{name[:40]}: a value is text, a number, true, false, or a list of these")


def _check(on: str, occasion: Occasion, functions: frozenset[int], found: Mapping[str, Any]) -> None:
    """Whether it says something, and not two things that contradict each other. Raises `UsageError`."""
    names = {function_name(number) for number in functions}
    if not found.keys() & OF_ACTION.keys():
        raise UsageError(f"it does nothing: give an action ({', '.join(OF_ACTION)})")
    for some, others in EXCLUDED:
        for one in some:
            for other in others:
                if one in found and other in found:
                    raise UsageError(f"{one} and {other} contradict each other")
    for word in found:
        row = OF_ACTION.get(word)
        if occasion is Occasion.CALL and row is not None and row.only and not names <= set(row.only):
            raise UsageError(f"{word} is for calls of {', '.join(row.only)}")
    _check_subject(on, occasion, names, found)
    _check_choices(occasion, names, found)
    if found.get("handler") is False and "running" in found:
        raise UsageError("handler=no and running contradict each other")
    if "each-vcpu" in found and "nth" not in found:
        raise UsageError("each-vcpu says how nth is counted: give nth too")
    if "marks" in found and found["marks"] == found.get("unmarks"):
        raise UsageError("it marks and unmarks with the same name")
    if found.get("deaf") is False:
        raise UsageError("deaf=no: a vCPU becomes deaf by a rule only; leave it out")
    if found.get("clobbers") and set(found["clobbers"]) & set(found.get("zeroes", ())):
        raise UsageError("clobbers and zeroes have a register in common")
    if occasion is Occasion.CALL and "x0" in (*found.get("clobbers", ()), *found.get("zeroes", ())):
        raise UsageError("x0 of a call is its result: use answers")


def _check_subject(on: str, occasion: Occasion, names: set[str], found: Mapping[str, Any]) -> None:
    if occasion is not Occasion.CALL:
        return
    for word in ("target", "target-power", "target-masked", "target-marked", "marks-target"):
        if word in found and not names <= TARGET_ARGUMENT.keys():
            raise UsageError(f"{word}: {on} names no vCPU; {', '.join(sorted(TARGET_ARGUMENT))} do")
    if found.get("target", ()) is None and found.keys() & {"target-power", "target-masked", "target-marked"}:
        raise UsageError("target=none has neither power nor mask nor marks")
    for word in ("event", "state"):
        known = EVENT_ARGUMENT | (INNERMOST if word == "event" else frozenset())
        if word in found and not names <= known:
            raise UsageError(f"{word}: {on} names no event; {', '.join(sorted(known))} do")


def _check_choices(occasion: Occasion, names: set[str], found: Mapping[str, Any]) -> None:
    """What a word can be depends on where it stands."""
    if found.get("never") == "after" and (occasion is not Occasion.CALL):
        raise UsageError("never=after is for calls; here it is never=instead")
    if "never" in found and occasion is Occasion.TRIGGER and found.get("by") != "interrupt":
        raise UsageError("never: no vCPU is in the firmware when the host triggers an event; by=interrupt")
    if found.get("loses") == "kick" and (occasion is Occasion.DELIVERY or names & _DONE_ELSEWHERE):
        raise UsageError("loses=kick: there is no kick here")
    if found.get("loses") == "event" and "CPU_ON" in names:
        raise UsageError("loses=event: CPU_ON has no event; loses=kick keeps the CPU from coming")
    kept = set(found.get("keeps", ()))
    possible = {
        Occasion.CALL: {"events", "handlers", "mask"},
        Occasion.RESET: {"events"},
    }.get(occasion, {"priorities"})
    if kept - possible:
        raise UsageError(f"keeps={','.join(sorted(kept - possible))} cannot be here; {', '.join(sorted(possible))} can")
    if "priorities" in kept and len(found.keys() & OF_ACTION.keys()) > 1:
        raise UsageError(
            "keeps=priorities stands alone, as it acts before all else: give the others a rule of their own"
        )
    if "handlers" in kept and "events" not in kept:
        raise UsageError("keeps=handlers: a handler is kept with its event; write keeps=events,handlers")
