"""Two traces compared: where they part, what only one of them does, what is answered differently.

Each sequence of steps (`steps.py`) is matched with the same one of the other trace (`matching.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from qemu_sdei.trace.differences import Answers, Comparison, Difference, Only, Shown
from qemu_sdei.trace.divergence_order import Order, Place
from qemu_sdei.trace.folds import FOLDS
from qemu_sdei.trace.matching import match
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.trace.step_lists import OWN, Lane, LaneKey, Outcome, Run, Vocabulary
from qemu_sdei.trace.steps import steps_of

_PART_STEPS: Final = 200
"""Steps of one side of a difference that are shown at most."""


Records = Iterable[Mapping[str, Any]]


def compare(
    a: tuple[TraceMeta, Records],
    b: tuple[TraceMeta, Records],
    *,
    folds: frozenset[str] = frozenset(FOLDS),
    vcpu: int | None = None,
    context: int = 3,
) -> Comparison:
    """Compare two traces, each given as what it says of itself and its decoded records in order.

    `folds`: names of FOLDS. `vcpu`: only this one; None: all. `context`: steps around a difference.
    """
    words = Vocabulary()
    runs = [steps_of(records, meta, words, folds) for meta, records in (a, b)]
    return _Comparer(runs[0], runs[1], words, folds, vcpu, context).run()


class _Matched(NamedTuple):
    """One sequence of both traces: which steps are the same kind, and which only one has."""

    key: LaneKey
    a: Lane
    b: Lane
    both: list[tuple[int, int]]
    only_a: set[int]
    only_b: set[int]


class _Comparer:
    def __init__(
        self, a: Run, b: Run, words: Vocabulary, folds: frozenset[str], vcpu: int | None, context: int
    ) -> None:
        self._a, self._b = a, b
        self._words = words
        self._folds = folds
        self._vcpu = vcpu
        self._context = context
        self._effects = not (a.hides_states or b.hides_states)
        self._found = Comparison(a, b)
        self._order = Order(a, b)
        self._begin = [min((lane.times[0] for lane in run.lanes.values() if lane), default=0) for run in (a, b)]

    def run(self) -> Comparison:
        """Compare everything."""
        self._notes()
        self._counted()
        self._idle()
        self._order = Order(self._a, self._b)
        matched = [self._match(key) for key in self._lanes()]
        if "places" in self._folds:
            self._fold_places(matched)
        begun = [found for lanes in matched if (found := self._lane(lanes)) is not None]
        begun.sort(key=lambda one: self._order.key(one[1]))
        self._found.firsts = [difference for difference, _ in begun]
        return self._found

    def _lanes(self) -> list[LaneKey]:
        keys = self._a.lanes.keys() | self._b.lanes.keys()
        return sorted(key for key in keys if self._vcpu in (None, key[0]))

    # ---- one sequence ------------------------------------------------------------------------------------------------

    def _match(self, key: LaneKey) -> _Matched:
        """Match one sequence."""
        a, b = self._a.lanes.get(key, Lane()), self._b.lanes.get(key, Lane())
        matching = match(a.kinds, b.kinds)
        self._found.exact &= matching.exact
        both = [(one.a + n, one.b + n) for one in matching.matches for n in range(one.length)]
        for x, y in both:
            self._order.both(a.numbers[x], b.numbers[y])
        paired = ({x for x, _ in both}, {y for _, y in both})
        only_a, only_b = (set(range(len(lane))) - known for lane, known in zip((a, b), paired, strict=True))
        return _Matched(key, a, b, both, only_a, only_b)

    def _fold_places(self, matched: list[_Matched]) -> None:
        """What one vCPU does in A and another one in B is no difference, if it is the same on each of them."""
        waiting: dict[tuple[int, int], dict[int, deque[tuple[_Matched, int]]]] = {}
        for one in matched:
            for n in sorted(one.only_a):
                if self._words.kinds[one.a.kinds[n]].anywhere:
                    places = waiting.setdefault((one.a.kinds[n], one.a.outcomes[n]), {})
                    places.setdefault(one.key[0], deque()).append((one, n))
        for one in matched:
            for n in sorted(one.only_b):
                places = waiting.get((one.b.kinds[n], one.b.outcomes[n]), {})
                vcpu = next((vcpu for vcpu, steps in places.items() if steps and vcpu != one.key[0]), None)
                if vcpu is not None:
                    other, place = places[vcpu].popleft()
                    other.only_a.discard(place)
                    one.only_b.discard(n)
                    self._order.both(other.a.numbers[place], one.b.numbers[n])
                    self._found.equal += 1

    def _lane(self, one: _Matched) -> tuple[Difference, Place] | None:
        """Compare one sequence; returns its first difference, and where that is."""
        key, a, b = one.key, one.a, one.b
        first: tuple[Difference, Place] | None = None
        at_a = at_b = equal = 0
        other: dict[tuple[int, int, int], Answers] = {}
        for x, y in [*one.both, (len(a), len(b))]:
            in_a = [n for n in range(at_a, x) if n in one.only_a]
            in_b = [n for n in range(at_b, y) if n in one.only_b]
            if in_a or in_b:
                first = first or self._difference(key, a, b, in_a, in_b, (at_a, x, y), equal)
            at_a, at_b = x + 1, y + 1
            if x == len(a) and y == len(b):
                break
            if self._alike(a, x, b, y):
                equal += 1
                continue
            self._answered(other, key, a, x, b, y)
            first = first or self._difference(key, a, b, [x], [y], (x, x + 1, y + 1), equal)
        self._found.equal += equal
        self._found.answers += other.values()
        self._only(key, _counts(a, one.only_a), _counts(b, one.only_b))
        return first

    def _alike(self, a: Lane, x: int, b: Lane, y: int) -> bool:
        """Whether two steps of one kind are the same."""
        left, right = a.outcomes[x], b.outcomes[y]
        if left == right:
            return True
        return self._outcome(left).same(self._outcome(right), effects=self._effects)

    def _outcome(self, number: int) -> Outcome:
        return self._words.outcomes[number]

    def _answered(
        self, other: dict[tuple[int, int, int], Answers], key: LaneKey, a: Lane, x: int, b: Lane, y: int
    ) -> None:
        same = (a.kinds[x], a.outcomes[x], b.outcomes[y])
        known = other.get(same)
        if known is not None:
            other[same] = known._replace(times=known.times + 1)
            return
        left, right = self._outcome(a.outcomes[x]), self._outcome(b.outcomes[y])
        text = self._words.kinds[a.kinds[x]].text
        texts = _apart(left, right)
        other[same] = Answers(*_where(key), text, *texts, left.clause, right.clause, 1, a.numbers[x], b.numbers[y])

    def _only(self, key: LaneKey, in_a: dict[int, tuple[int, int]], in_b: dict[int, tuple[int, int]]) -> None:
        for kind in [*in_a, *(kind for kind in in_b if kind not in in_a)]:
            (a, n_a), (b, n_b) = in_a.get(kind, (0, 0)), in_b.get(kind, (0, 0))
            text = self._words.kinds[kind].text
            for listed, times, n in (
                (self._found.only_a, a - b, n_a),
                (self._found.only_b, b - a, n_b),
                (self._found.moved, min(a, b), n_a),
            ):
                if times > 0:
                    listed.append(Only(*_where(key), text, times, n))

    def _difference(
        self,
        key: LaneKey,
        a: Lane,
        b: Lane,
        in_a: list[int],
        in_b: list[int],
        around: tuple[int, int, int],
        equal: int,
    ) -> tuple[Difference, Place]:
        """Steps `in_a` and `in_b` differ; `around`: where in A they begin, where in A and B they have ended."""
        begin, end_a, end_b = around
        found = Difference(
            *_where(key),
            equal,
            [self._shown("", a, n) for n in range(max(begin - self._context, 0), begin)],
            [self._shown("a", a, n) for n in in_a[:_PART_STEPS]],
            [self._shown("b", b, n) for n in in_b[:_PART_STEPS]],
            [self._shown("", a, n) for n in range(end_a, min(end_a + self._context, len(a)))],
        )
        found.longer = sum(max(len(steps) - _PART_STEPS, 0) for steps in (in_a, in_b))
        if len(in_a) == len(in_b) == 1:
            found.clause_a = self._outcome(a.outcomes[in_a[0]]).clause
            found.clause_b = self._outcome(b.outcomes[in_b[0]]).clause
        return found, self._order.place(a, b, in_a, in_b, (end_a, end_b))

    def _shown(self, side: str, lane: Lane, n: int) -> Shown:
        kind, outcome = self._words.kinds[lane.kinds[n]], self._outcome(lane.outcomes[n])
        text = kind.text + answer(outcome) if kind.function else kind.text
        since = lane.times[n] - self._begin[side == "b"]
        return Shown(side, text, lane.numbers[n], since, lane.in_a_row[n])

    # ---- the rest ----------------------------------------------------------------------------------------------------

    def _counted(self) -> None:
        """Functions of which one trace has only numbers are compared by these, whatever the other has."""
        names = {function for run in (self._a, self._b) for _, function in run.counted}
        kinds = {n for n, kind in enumerate(self._words.kinds) if kind.function in names}
        for run in (self._a, self._b):
            for key, lane in run.lanes.items():
                run.lanes[key], gone = lane.without(kinds)
                for kind, count in gone.items():
                    run.counted[key[0], self._words.kinds[kind].function] += count
        for vcpu, function in sorted(self._a.counted.keys() | self._b.counted.keys()):
            if self._vcpu not in (None, vcpu):
                continue
            a, b = self._a.counted[vcpu, function], self._b.counted[vcpu, function]
            if (bool(a) != bool(b)) if "counts" in self._folds else a != b:
                self._found.counted.append((function, vcpu, a, b))

    def _idle(self) -> None:
        """Calls that wait for something to do: which there were, and how they were answered."""
        for key in sorted(self._a.idle.keys() | self._b.idle.keys()):
            if self._vcpu not in (None, key[0]):
                continue
            a, b = ({answer(self._outcome(n)): n for n in run.idle.get(key, ())} for run in (self._a, self._b))
            for listed, run, more in (
                (self._found.only_a, self._a, a.keys() - b.keys()),
                (self._found.only_b, self._b, b.keys() - a.keys()),
            ):
                for text in sorted(more):
                    count = sum(times for n, times in run.idle[key].items() if answer(self._outcome(n)) == text)
                    listed.append(Only(key[0], None, self._words.kinds[key[1]].text + text, count, 0))

    def _notes(self) -> None:
        notes = self._found.notes
        for name, run in (("A", self._a), ("B", self._b)):
            if run.before:
                notes.append(f"{name} begins within the guest's life: {_records(run.before)} before it are missing")
            if run.missing:
                notes.append(f"{name} lacks {_records(run.missing)}: what only the other one has may be among them")
            if run.cut is not None:
                notes.append(f"of {name} only the first {run.cut} steps are compared")
            if run.hides_states:
                notes.append(f"{name} has no transitions: states of events are not compared")


def _records(count: int) -> str:
    return f"{count} record" + ("s" if count != 1 else "")


def answer(outcome: Outcome) -> str:
    """What a call's line ends with."""
    if outcome.result in ("parks", "waits", "no answer"):
        return f": {outcome.result}"
    return f" = {outcome.result}" if outcome.result else ""


def _apart(a: Outcome, b: Outcome) -> tuple[str, str]:
    """What tells two outcomes apart: the results, or else what they brought about."""
    if a.result != b.result:
        return a.result or "?", b.result or "?"
    return ("; ".join(a.effects) or "nothing changes", "; ".join(b.effects) or "nothing changes")


def _where(key: LaneKey) -> tuple[int, int | None]:
    return key[0], None if key[1] == OWN else key[1]


def _counts(lane: Lane, steps: set[int]) -> dict[int, tuple[int, int]]:
    """How often each kind is among these steps, and the serial number of the first."""
    counts: dict[int, tuple[int, int]] = {}
    for n in sorted(steps):
        count, first = counts.get(lane.kinds[n], (0, lane.numbers[n]))
        counts[lane.kinds[n]] = (count + lane.in_a_row[n], first)
    return counts
