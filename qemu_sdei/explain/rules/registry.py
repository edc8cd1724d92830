"""How a rule is made known: by `@rule` above a function that looks at a guest and gives findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from qemu_sdei.explain.finding import Finding
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture

Rule = Callable[[Picture, History], Iterable[Finding]]
RULES: Final[list[Rule]] = []
PATIENCE: Final = 1_000_000_000
"""Nanoseconds after which what ought to take microseconds is taken to last for ever."""


def rule(function: Rule) -> Rule:
    """Have a function asked for each guest."""
    RULES.append(function)
    return function


def lasts(age: int | None) -> bool:
    """Whether something that began that long ago lasts too long; also what is older than the trace."""
    return age is None or age >= PATIENCE
