"""What a trace is compared by: sequences of numbered steps, small enough for a million of them."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from qemu_sdei.trace.meta import TraceMeta

MAX_KINDS: Final = 100_000
"""Different calls or answers of both traces: a program has hundreds."""
MAX_TEXT: Final = 300
"""Characters of a step."""


class FullError(Exception):
    """No more can be compared."""


class Outcome(NamedTuple):
    """What came of a step."""

    result: str
    """As text; "" if there was none."""
    known: bool
    """Whether there is a result: a call that a handler interrupted has one, but the trace does not show it."""
    effects: tuple[str, ...]
    """Changes of states that it brought about."""
    clause: str
    """What decides it; "" if nothing is known."""

    def same(self, other: Outcome, *, effects: bool) -> bool:
        """Whether nothing says that they differ."""
        results = self.result == other.result or not (self.known and other.known)
        return results and (not effects or self.effects == other.effects)


class Kind(NamedTuple):
    """What a step is."""

    function: str
    """Name of a function; "" if it is no call."""
    text: str
    anywhere: bool = False
    """Whether it is the same whichever vCPU makes the call."""


LaneKey = tuple[int, int]
"""vCPU, and the event whose handlers it is, or -1: everything else."""
OWN: Final = -1


class Vocabulary:
    """Numbers for kinds and outcomes: both traces of a comparison use the same."""

    def __init__(self) -> None:
        self.kinds: list[Kind] = []
        self.outcomes: list[Outcome] = []
        self._kinds: dict[Kind, int] = {}
        self._outcomes: dict[Outcome, int] = {}

    def kind(self, function: str, text: str, *, anywhere: bool = False) -> int:
        """The number of a kind. Raises `FullError`: there are too many."""
        return _numbered(Kind(function, text[:MAX_TEXT], anywhere), self._kinds, self.kinds)

    def outcome(self, outcome: Outcome) -> int:
        """The number of an outcome. Raises `FullError`: there are too many."""
        return _numbered(outcome, self._outcomes, self.outcomes)


def _numbered(value: Any, numbers: dict[Any, int], values: list[Any]) -> int:
    number = numbers.get(value)
    if number is None:
        if len(values) >= MAX_KINDS:
            raise FullError
        number = numbers[value] = len(values)
        values.append(value)
    return number


class Lane:
    """One sequence.

    Attributes:
        kinds, outcomes: of each step, by the vocabulary's numbers.
        numbers: serial number of the record of each step.
        times: when, on the trace's time axis, in nanoseconds.
        times_in_a_row: how often each was repeated.
    """

    def __init__(self) -> None:
        self.kinds = array("l")
        self.outcomes = array("l")
        self.numbers = array("q")
        self.times = array("q")
        self.in_a_row = array("q")

    def __len__(self) -> int:
        return len(self.kinds)

    def add(self, kind: int, outcome: int, number: int, time: int) -> None:
        """Add a step."""
        self.kinds.append(kind)
        self.outcomes.append(outcome)
        self.numbers.append(_clipped(number))
        self.times.append(_clipped(time))
        self.in_a_row.append(1)

    def without(self, kinds: set[int]) -> tuple[Lane, Counter[int]]:
        """The lane without steps of these kinds, and how many of each there were."""
        lane, gone = Lane(), Counter[int]()
        for n, kind in enumerate(self.kinds):
            if kind in kinds:
                gone[kind] += self.in_a_row[n]
            else:
                lane.add(kind, self.outcomes[n], self.numbers[n], self.times[n])
                lane.in_a_row[-1] = self.in_a_row[n]
        return lane, gone


def _clipped(value: int) -> int:
    return max(min(value, (1 << 63) - 1), -(1 << 63))


@dataclass
class Run:
    """One trace, ready to be compared.

    Attributes:
        meta: of which guest it is.
        lanes: the sequences.
        counted: how often each vCPU called a function that was only counted.
        idle: of each vCPU and kind of CPU_SUSPEND, how often it had which outcome.
        functions: how often each function was called, in all.
        asides: what is told and not compared: triggers, what was not delivered, and why.
        missing: how many records are missing.
        before: how many records are missing at the beginning.
        cut: only the first so many steps are there; None: all.
        registered, shows_states: whether events are registered in it, and whether it has transitions at all. One that
            another program wrote may have calls only.
    """

    meta: TraceMeta
    lanes: dict[LaneKey, Lane] = field(default_factory=dict)
    counted: Counter[tuple[int, str]] = field(default_factory=Counter)
    idle: dict[tuple[int, int], Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    functions: Counter[str] = field(default_factory=Counter)
    asides: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    before: int = 0
    cut: int | None = None
    registered: bool = False
    shows_states: bool = False

    @property
    def hides_states(self) -> bool:
        """Whether states of events change in it and it does not say so."""
        return self.registered and not self.shows_states
