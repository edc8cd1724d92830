"""Which elements of two sequences are the same, in order: a longest common subsequence, or nearly so in bounded time.

First what both begin and end with. Then, if little differs, the fewest insertions and deletions (E. W. Myers, "An
O(ND) Difference Algorithm and Its Variations", Algorithmica 1, 1986). Where much differs, elements and then rows of
elements that are there just once on each side divide the sequences (as "patience diff" does it), so that a large
insertion costs no more than its length. What is left without such a mark is gone through by Myers' algorithm step by
step: it commits itself to the furthest path it has found so far, which may not be the best one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

_ROWS: Final = (1, 4, 16)
"""Lengths of the rows that are looked for."""
_NEAR: Final = 128
"""Differences up to which the fewest are looked for at once."""
_FAR: Final = 512
"""The same where nothing marks the way."""
WORK: Final = 3_000_000
"""Steps of Myers' algorithm in all: some seconds. Beyond them each commitment is made after `_HASTE` differences."""
_HASTE: Final = 48


class Match(NamedTuple):
    """`length` elements from `a` on in the first sequence are those from `b` on in the second."""

    a: int
    b: int
    length: int


class Matching(NamedTuple):
    """What of two sequences is the same."""

    matches: list[Match]
    """In order, none empty, no two of them adjacent on both sides."""
    exact: bool
    """Whether no other one has fewer differences, as far as was looked: nothing was decided in haste."""


def match(first: Sequence[int], second: Sequence[int]) -> Matching:
    """Match two sequences."""
    matcher = _Matcher(first, second)
    matcher.run()
    return Matching(_joined(matcher.found), matcher.exact)


class _Matcher:
    def __init__(self, first: Sequence[int], second: Sequence[int]) -> None:
        self._a = first
        self._b = second
        self._left = WORK
        self.found: list[Match] = []
        self.exact = True

    def run(self) -> None:
        """Find all matches."""
        todo = [(0, len(self._a), 0, len(self._b))]
        while todo:
            todo.extend(self._divide(*todo.pop()))
        self.found.sort()

    def _divide(self, a: int, a_end: int, b: int, b_end: int) -> list[tuple[int, int, int, int]]:
        """Match what can be matched in a rectangle at once; returns what is left of it."""
        first, second = self._a, self._b
        begin = a
        while a < a_end and b < b_end and first[a] == second[b]:
            a, b = a + 1, b + 1
        if a > begin:
            self.found.append(Match(begin, b - (a - begin), a - begin))
        end = a_end
        while a < a_end and b < b_end and first[a_end - 1] == second[b_end - 1]:
            a_end, b_end = a_end - 1, b_end - 1
        if a_end < end:
            self.found.append(Match(a_end, b_end, end - a_end))
        if a == a_end or b == b_end:
            return []
        if abs((a_end - a) - (b_end - b)) <= _NEAR and self._fewest(a, a_end, b, b_end, _NEAR):
            return []
        for length in _ROWS:
            marks = self._marks(a, a_end, b, b_end, length)
            if marks:
                return self._between(marks, a, a_end, b, b_end)
        if not set(first[a:a_end]) & set(second[b:b_end]):
            return []
        while a < a_end and b < b_end:
            a, b = self._advance(a, a_end, b, b_end)
        return []

    # ---- marks -------------------------------------------------------------------------------------------------------

    def _marks(self, a: int, a_end: int, b: int, b_end: int, length: int) -> list[Match]:
        """Rows that are there once on each side, as many as are in the same order on both."""
        if a_end - a < length or b_end - b < length:
            return []
        there = _once(self._b, b, b_end, length)
        pairs = [(at, there[row]) for row, at in _once(self._a, a, a_end, length).items() if row in there]
        pairs.sort()
        return [Match(at_a, at_b, length) for at_a, at_b in _rising(pairs)]

    def _between(self, marks: list[Match], a: int, a_end: int, b: int, b_end: int) -> list[tuple[int, int, int, int]]:
        """Take `marks` as matched; returns what lies between them."""
        left = []
        for mark in marks:
            # Rows overlap: what the one before has taken is taken.
            skip = max(a - mark.a, b - mark.b, 0)
            if skip >= mark.length:
                continue
            if mark.a + skip > a or mark.b + skip > b:
                left.append((a, mark.a + skip, b, mark.b + skip))
            self.found.append(Match(mark.a + skip, mark.b + skip, mark.length - skip))
            a, b = mark.a + mark.length, mark.b + mark.length
        left.append((a, a_end, b, b_end))
        return left

    # ---- Myers -------------------------------------------------------------------------------------------------------

    def _fewest(self, a: int, a_end: int, b: int, b_end: int, most: int) -> bool:
        """Match a rectangle with at most `most` differences, if that is possible."""
        path, done = self._search(a, a_end, b, b_end, most)
        if done:
            self._keep(path, a, b)
        return done

    def _advance(self, a: int, a_end: int, b: int, b_end: int) -> tuple[int, int]:
        """Go on from (a, b) as far as is decided at once; returns where that is."""
        path, done = self._search(a, a_end, b, b_end, _FAR if self._left > 0 else _HASTE)
        if not done:
            self.exact = False
        x, y = self._keep(path, a, b)
        return (a_end, b_end) if done else (x, y)

    def _keep(self, path: list[tuple[int, int, int]], a: int, b: int) -> tuple[int, int]:
        """Take the equal parts of a path as matched; returns its end."""
        x = y = 0
        for x, y, length in path:
            if length:
                self.found.append(Match(a + x - length, b + y - length, length))
        return a + x, b + y

    def _search(self, a: int, a_end: int, b: int, b_end: int, most: int) -> tuple[list[tuple[int, int, int]], bool]:
        """A path through a rectangle: to its end if at most `most` differences lead there (True), else to the point
        furthest from the beginning. It is a list of (x, y, how many equal elements lead there).
        """
        first, second = self._a, self._b
        wide, high = a_end - a, b_end - b
        most = min(most, wide + high)
        middle = most + 1
        furthest = [_NOWHERE] * (2 * most + 3)
        furthest[middle + 1] = 0
        rows: list[list[int]] = []
        for differences in range(most + 1):
            # Diagonals beyond the rectangle lead nowhere; those that count have the parity of `differences`.
            low = -differences + 2 * max(differences - high, 0)
            top = differences - 2 * max(differences - wide, 0)
            rows.append(furthest[middle - differences - 1 : middle + differences + 2])
            self._left -= (top - low) // 2 + 1
            for k in range(low, top + 1, 2):
                left, right = furthest[middle + k - 1], furthest[middle + k + 1]
                x = right if left < right else left + 1
                y = x - k
                if x < 0 or x > wide or y > high:
                    furthest[middle + k] = _NOWHERE
                    continue
                while x < wide and y < high and first[a + x] == second[b + y]:
                    x, y = x + 1, y + 1
                furthest[middle + k] = x
                if x == wide and y == high:
                    return _back(rows, k, x), True
        best = max(
            ((x, k) for k in range(-most, most + 1, 2) if (x := furthest[middle + k]) >= 0),
            key=lambda point: 2 * point[0] - point[1],
        )
        return _back(rows, best[1], best[0]), False


_NOWHERE: Final = -(1 << 60)


def _back(rows: list[list[int]], k: int, x: int) -> list[tuple[int, int, int]]:
    """The path to (x, x - k), which `_search` found with the last of `rows`: of each number of differences, what was
    furthest on each diagonal before, from one beyond the first to one beyond the last.
    """
    path = []
    for differences in range(len(rows) - 1, -1, -1):
        row, middle = rows[differences], differences + 1
        left, right = row[middle + k - 1], row[middle + k + 1]
        down = left < right
        begin = right if down else left + 1
        path.append((x, x - k, x - begin))
        x, k = (right, k + 1) if down else (left, k - 1)
    path.reverse()
    return path


def _once(values: Sequence[int], begin: int, end: int, length: int) -> dict[object, int]:
    """Where each row of `length` values begins that is there only once."""
    places: dict[object, int] = {}
    for at in range(begin, end - length + 1):
        row = values[at] if length == 1 else tuple(values[at : at + length])
        places[row] = -1 if row in places else at
    return {row: at for row, at in places.items() if at >= 0}


def _rising(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """As many of `pairs`, sorted by their first numbers, as have rising second ones."""
    ends: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for n, (_, value) in enumerate(pairs):
        at = bisect_left(ends, value)
        before.append(last[at - 1] if at else -1)
        ends[at : at + 1] = [value]
        last[at : at + 1] = [n]
    chosen = []
    n = last[-1] if last else -1
    while n >= 0:
        chosen.append(pairs[n])
        n = before[n]
    chosen.reverse()
    return chosen


def _joined(found: list[Match]) -> list[Match]:
    joined: list[Match] = []
    for one in found:
        if joined and (last := joined[-1]).a + last.length == one.a and last.b + last.length == one.b:
            joined[-1] = Match(last.a, last.b, last.length + one.length)
        else:
            joined.append(one)
    return joined
