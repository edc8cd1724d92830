"""What a comparison of two traces comes to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from qemu_sdei.trace.step_lists import Run

MAX_LISTED: Final = 1000
"""Entries of each list in a document: what only one does, other answers."""


class Shown(NamedTuple):
    """A step as it is shown.

    `side`: "a", "b", or "" where both have it. `n`: serial number of its record there (of "" in A). `time_ns`: since
    the trace began. `times`: in a row.
    """

    side: str
    text: str
    n: int
    time_ns: int
    times: int

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict()


@dataclass
class Difference:
    """A place at which the traces differ.

    Attributes:
        vcpu, event: the sequence; event None: not in a handler.
        after: how many steps before it are the same on both sides, in all of this sequence.
        before, after_it: steps around it that both have.
        only_a, only_b: steps that one of them has here. One of each that is the same call: it is answered differently.
        clause_a, clause_b: for such a one, what decides the answers.
        longer: how many more steps than are listed are in it.
    """

    vcpu: int
    event: int | None
    after: int
    before: list[Shown]
    only_a: list[Shown]
    only_b: list[Shown]
    after_it: list[Shown]
    clause_a: str = ""
    clause_b: str = ""
    longer: int = 0

    def document(self) -> dict[str, Any]:
        """For JSON."""
        steps = {name: [step.document() for step in getattr(self, name)] for name in _STEP_LISTS}
        return {
            "vcpu": self.vcpu,
            "event": self.event,
            "after": self.after,
            **steps,
            "clause_a": self.clause_a,
            "clause_b": self.clause_b,
            "longer": self.longer,
        }


_STEP_LISTS: Final = ("before", "only_a", "only_b", "after_it")


class Answers(NamedTuple):
    """A call that is answered differently. `times`: so often; `n_a`, `n_b`: records of the first time."""

    vcpu: int
    event: int | None
    call: str
    a: str
    b: str
    clause_a: str
    clause_b: str
    times: int
    n_a: int
    n_b: int


class Only(NamedTuple):
    """Something that one of them does (so often more than the other), or both in another order. `n`: serial number of
    the record of the first time, in A if it is there.
    """

    vcpu: int
    event: int | None
    step: str
    times: int
    n: int


@dataclass
class Comparison:
    """What two traces have in common, and what not.

    Attributes:
        a, b: the traces, as they were compared.
        equal: how many steps are the same.
        first: the earliest difference of all; None: there is none in the order of calls.
        firsts: the first of each sequence that has one, the earliest first.
        only_a, only_b: what only one of them does, in its order.
        answers: calls that are answered differently.
        moved: what both do, in another order.
        counted: function, vCPU and how often in A and in B, of functions that were only counted, where that differs.
        functions: how often each function was called in A and in B.
        asides: what was told and not compared, how often in A and in B.
        exact: whether no other matching has fewer differences, as far as was looked.
        notes: what a reader must know: what is missing, what was left out.
    """

    a: Run
    b: Run
    equal: int = 0
    firsts: list[Difference] = field(default_factory=list)
    only_a: list[Only] = field(default_factory=list)
    only_b: list[Only] = field(default_factory=list)
    moved: list[Only] = field(default_factory=list)
    answers: list[Answers] = field(default_factory=list)
    counted: list[tuple[str, int, int, int]] = field(default_factory=list)
    exact: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def first(self) -> Difference | None:
        """The earliest difference."""
        return self.firsts[0] if self.firsts else None

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.firsts or self.only_a or self.only_b or self.moved or self.answers or self.counted)

    @property
    def functions(self) -> dict[str, tuple[int, int]]:
        """How often each function was called in A and in B."""
        return _both(self.a.functions, self.b.functions)

    @property
    def asides(self) -> dict[str, tuple[int, int]]:
        """What was told and not compared, how often in A and in B."""
        return _both(self.a.asides, self.b.asides)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "same": self.same,
            "equal": self.equal,
            "exact": self.exact,
            "notes": self.notes,
            "first": None if self.first is None else self.first.document(),
            "firsts": [difference.document() for difference in self.firsts[:MAX_LISTED]],
            "only_a": [one._asdict() for one in self.only_a[:MAX_LISTED]],
            "only_b": [one._asdict() for one in self.only_b[:MAX_LISTED]],
            "moved": [one._asdict() for one in self.moved[:MAX_LISTED]],
            "answers": [one._asdict() for one in self.answers[:MAX_LISTED]],
            "counted": [dict(zip(("function", "vcpu", "a", "b"), row, strict=True)) for row in self.counted],
            "functions": {name: {"a": a, "b": b} for name, (a, b) in self.functions.items()},
            "asides": {name: {"a": a, "b": b} for name, (a, b) in self.asides.items()},
        }


def _both(a: Counter[str], b: Counter[str]) -> dict[str, tuple[int, int]]:
    return {name: (a[name], b[name]) for name in sorted(a.keys() | b.keys())}
