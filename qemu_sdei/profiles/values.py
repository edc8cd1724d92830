"""The values that stand in a rule, read: each form of `vocabulary.Kind`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from qemu_sdei.errors import UsageError
from qemu_sdei.profiles import sites
from qemu_sdei.profiles.vocabulary import LISTS, Kind, choices_of
from qemu_sdei.sdei.constants import CODE_NAMES
from qemu_sdei.services.psci import Code

Ranges = tuple[tuple[int, int], ...]
"""Numbers, as pairs of the first and the last."""

MAX_LATE_NS: Final = 600 * 1_000_000_000
SYSTEM_REGISTERS: Final = ("ELR_EL1", "SPSR_EL1", "ESR_EL1", "FAR_EL1", "SP_EL0", "TPIDR_EL0", "TPIDR_EL1")
"""What `clobbers` and `zeroes` reach beside x0 to x17."""
_MAX_RANGES: Final = 16
_MAX_NUMBER: Final = (1 << 64) - 1
_LAST_REGISTER: Final = 17
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_TIME: Final = re.compile(r"([0-9]{1,9})(us|ms|s)")
_UNITS: Final = {"us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}

CODES: Final[dict[str, int]] = {
    **{code.name: int(code) for code in Code},
    **{name: code for code, name in CODE_NAMES.items()},
}
"""Result codes of SDEI and PSCI, which agree where they have a name in common."""


class Nth(NamedTuple):
    """Which of the times a rule acts at: those from `first` to `last` (None: all after it), each `every`-th."""

    first: int
    last: int | None
    every: int = 1

    def has(self, count: int) -> bool:
        """Whether the `count`-th time, counted from 1, is among them."""
        return self.first <= count and (self.last is None or count <= self.last) and count % self.every == 0

    def among(self, count: int) -> int:
        """How many of the first `count` times are among them."""
        last = count if self.last is None else min(count, self.last)
        return max(last - self.first + 1, 0) // self.every


ALWAYS: Final = Nth(1, None)


def number(text: str) -> int:
    """A number from 0 to 2^64-1. Raises `UsageError`."""
    value = int(text, 0) if _NUMBER.fullmatch(text) and not re.fullmatch("0[0-9]+", text) else -1
    if not 0 <= value <= _MAX_NUMBER:
        raise UsageError(f"{text!r} is not a number from 0 to 2^64-1: write 17 or 0x11")
    return value


def read(word: str, kind: Kind, text: str) -> Any:
    """The value that `text` is for a condition or an action.

    Raises:
        UsageError: it is none; the message says what it can be.
    """
    try:
        return _READERS[kind](text, word)
    except UsageError as error:
        raise UsageError(f"{word}={text}: {error}") from None


def ranges(text: str, _: str = "") -> Ranges:
    """Numbers and ranges of them: "1", "0x100..0x1ff,1019". Raises `UsageError`."""
    items = text.split(",")
    if len(items) > _MAX_RANGES:
        raise UsageError(f"more than {_MAX_RANGES} ranges")
    found = []
    for item in items:
        first, dots, last = item.partition("..")
        low = number(first)
        high = number(last) if dots else low
        if high < low:
            raise UsageError(f"the range {item} ends before it begins")
        found.append((low, high))
    return tuple(found)


def within(value: int, wanted: Ranges) -> bool:
    """Whether a number is in one of the ranges."""
    return any(low <= value <= high for low, high in wanted)


def _yes(text: str, _: str) -> bool:
    if text not in ("yes", "no"):
        raise UsageError("it is yes or no")
    return text == "yes"


def _targets(text: str, _: str) -> Ranges | None:
    return None if text == "none" else ranges(text)


def _nth(text: str, _: str) -> Nth:
    every = text.startswith("every:")
    first, dots, last = text.removeprefix("every:").partition("..")
    low = number(first)
    if low == 0:
        raise UsageError("times are counted from 1")
    if every:
        if dots:
            raise UsageError("write every:10, or 2..5")
        return Nth(1, None, low)
    high = number(last) if last else None if dots else low
    if high is not None and high < low:
        raise UsageError("it ends before it begins")
    return Nth(low, high)


def _words(text: str, word: str) -> Any:
    choices = choices_of(word)
    items = text.split(",")
    for item in items:
        if item not in choices:
            raise UsageError(f"{item[:40]!r} is not one of {', '.join(choices)}")
    if word in LISTS:
        return tuple(sorted(set(items)))
    if len(items) > 1:
        raise UsageError(f"give one of {', '.join(choices)}")
    return items[0]


def _name(text: str, _: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise UsageError("a mark is 1 to 32 of a-z, 0-9, -, and begins with no -")
    return text


def _result(text: str, _: str) -> int:
    if text in CODES:
        return CODES[text]
    negative = text.startswith("-")
    try:
        value = number(text.removeprefix("-"))
    except UsageError:
        raise UsageError(f"a result is a number, or one of {', '.join(sorted(CODES))}") from None
    if negative and value > 1 << 63:
        raise UsageError("it does not fit in 64 bits")
    return -value if negative else value


def _time(text: str, _: str) -> int:
    match = _TIME.fullmatch(text)
    value = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < value <= MAX_LATE_NS:
        raise UsageError("write a time such as 500us, 5ms or 2s, up to 600s")
    return value


def _registers(text: str, _: str) -> tuple[str, ...]:
    found: list[str] = []
    for item in text.split(","):
        first, dots, last = item.partition("..")
        if not dots and first in SYSTEM_REGISTERS:
            found.append(first)
            continue
        low, high = _register(first), _register(last if dots else first)
        if high < low:
            raise UsageError(f"the range {item} ends before it begins")
        found += [f"x{n}" for n in range(low, high + 1)]
    if len(set(found)) < len(found):
        raise UsageError("a register is there twice")
    return tuple(found)


def _register(text: str) -> int:
    if re.fullmatch("x[0-9]{1,2}", text) is None or not 0 <= int(text[1:]) <= _LAST_REGISTER:
        raise UsageError(f"{text[:20]!r} is not one of x0 to x17, {', '.join(SYSTEM_REGISTERS)}")
    return int(text[1:])


_READERS: Final[dict[Kind, Callable[[str, str], Any]]] = {
    Kind.YES: _yes,
    Kind.VCPUS: ranges,
    Kind.TARGETS: _targets,
    Kind.NUMBERS: ranges,
    Kind.SITES: lambda text, _: sites.read(text, number),
    Kind.NTH: _nth,
    Kind.WORDS: _words,
    Kind.NAME: _name,
    Kind.RESULT: _result,
    Kind.TIME: _time,
    Kind.VCPU: lambda text, _: number(text),
    Kind.REGISTERS: _registers,
}
