"""Which scenarios there are: read from the guest's own list, the one place where they are written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError

SOURCES: Final = Path(__file__).parent / "sources"
"""The guest's sources (`guest/`), which are shipped: a scenario folder of a user's own is built with them."""
LIST: Final = SOURCES / "conformance" / "list.h"
EXTRA_LIST: Final = "scenarios.h"
"""Name of the list in a user's own folder."""
LAST: Final = 102
"""Number of the last scenario of ours."""
EXTRA: Final = range(201, 300)
"""Numbers of a user's own scenarios."""
_MAX_LIST: Final = 1 << 20

_ENTRY: Final = re.compile(
    r'(SCENARIO|ELSEWHERE)\((\d+),(?: (\w+), (\w+),)? "([^"]*)", "([^"]*)",\s*(?:"([^"]*)"|([^)]*))\)'
)
_FILTER: Final = re.compile(r"[a-z]+|\d{1,3}(-\d{1,3})?")


@dataclass(frozen=True)
class Scenario:
    """One line of a list."""

    number: int
    group: str
    """The file it is in, without `.c`; empty for what no bare-metal client can express."""
    name: str
    source: str
    elsewhere: str = ""
    """Where it is tested, if not in the guest."""
    flags: str = ""


def parse(text: str) -> tuple[Scenario, ...]:
    """The scenarios of a list, in its order."""
    return tuple(
        Scenario(int(number), group, name, source, where, flags.strip())
        for _, number, group, _, name, source, where, flags in _ENTRY.findall(text)
    )


def builtin() -> tuple[Scenario, ...]:
    """The scenarios that are shipped."""
    return parse(LIST.read_text())


def extra(folder: Path) -> tuple[Scenario, ...]:
    """The scenarios of a user's own folder. Raises `UsageError`."""
    path = folder / EXTRA_LIST
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_LIST).decode("utf-8", "replace")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): a scenario folder has a list there") from None
    found = parse(text)
    if not found:
        raise UsageError(
            f'{path} has no scenario: write SCENARIO({EXTRA[0]}, group, function, "what it asks", "its source", 0)'
        )
    numbers = [scenario.number for scenario in found]
    for number in numbers:
        if number not in EXTRA:
            raise UsageError(f"{path}: scenario {number}: numbers of your own are {EXTRA[0]} to {EXTRA[-1]}")
        if numbers.count(number) > 1:
            raise UsageError(f"{path}: scenario {number} is there twice")
    return found


def check_filter(text: str) -> str:
    """`text` if it can be a filter: numbers, ranges and groups, separated by commas. Raises `UsageError`."""
    for part in text.split(",") if text else ():
        if _FILTER.fullmatch(part) is None:
            raise UsageError(f"filter {part!r} is not a number (13), range (12-21) or group (bind)")
    return text


def select(scenarios: Sequence[Scenario], text: str) -> tuple[Scenario, ...]:
    """Those that a filter selects, in the order in which the guest runs them. Raises `UsageError` if there is none."""
    if not check_filter(text):
        return tuple(scenarios)
    chosen: dict[int, Scenario] = {}
    for part in text.split(","):
        chosen.update((s.number, s) for s in _matching(scenarios, part) if s.number not in chosen)
    if not chosen:
        raise UsageError(f"no scenario is called {text!r}: see docs/reference/conformance.md for the list")
    return tuple(chosen.values())


def _matching(scenarios: Iterable[Scenario], part: str) -> list[Scenario]:
    if not part[0].isdigit():
        return [s for s in scenarios if s.group == part]
    low, _, high = part.partition("-")
    return [s for s in scenarios if int(low) <= s.number <= int(high or low)]
