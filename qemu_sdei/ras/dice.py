"""Choices that a seed makes: the same ones wherever and whenever they are made again.

`random.Random` promises that of its `random()` only, so nothing else of it is used.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
_BITS: Final = 32


class Dice:
    """One row of choices."""

    def __init__(self, *seed: object) -> None:
        """`seed`: numbers or text; each other one gives another row."""
        self._random = random.Random(":".join(map(str, seed)))

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1, `limit` being up to 2**48."""
        return int(self._random.random() * limit)

    def between(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: float) -> bool:
        """True in so many of a hundred cases."""
        return self._random.random() * 100 < percent

    def one_of(self, choices: Sequence[T]) -> T:
        """One of them, each as likely."""
        return choices[self.below(len(choices))]

    def weighted(self, choices: Mapping[T, float]) -> T:
        """One of them, as likely as its number says."""
        left = self._random.random() * sum(choices.values())
        for choice, weight in choices.items():
            left -= weight
            if left < 0:
                return choice
        return list(choices)[-1]

    def bits(self, count: int) -> int:
        """A number of so many bits."""
        number = 0
        for at in range(0, count, _BITS):
            number |= self.below(1 << min(_BITS, count - at)) << at
        return number

    def octets(self, count: int) -> bytes:
        """So many bytes."""
        return self.bits(8 * count).to_bytes(count, "little")
