"""A fuzzing run: cases one after the other, what became of each, and of each fault the simplest case that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from qemu_sdei.fuzzing.findings import Finding, WrittenCase
from qemu_sdei.fuzzing.minimise import TRIES, minimised
from qemu_sdei.fuzzing.results import Results
from qemu_sdei.fuzzing.verdicts import Judged, Observed, judge
from qemu_sdei.ras.any_record import Shape
from qemu_sdei.ras.mutate import Case, case

_SUSPECTS: Final = 3
"""How many cases before may be those that broke the kernel: it puts work off."""
_KEEP: Final = 30.0
"""Seconds between two times that totals are written."""
_SECOND: Final = 2
"""A fault that its case alone does not show is looked for once more when it is met again."""


class Shown(Protocol):
    """What a guest does with errors; see `target.Target`."""

    @property
    def shape(self) -> Shape:
        """What errors for it are like."""

    @property
    def kernel(self) -> str:
        """What its kernel calls itself."""

    def show(self, data: bytes, *, alone: bool = False) -> Observed:
        """Report an error, and look what becomes of it."""

    def restore(self) -> None:
        """Have it be as it was."""


@dataclass
class Limits:
    """When a run ends."""

    count: int | None
    """After so many cases."""
    seconds: float | None = None

    def reached(self, cases: int, began: float) -> bool:
        """Whether it does now."""
        if self.count is not None and cases >= self.count:
            return True
        return self.seconds is not None and time.monotonic() - began >= self.seconds


class Campaign:
    """One run."""

    def __init__(
        self,
        target: Shown,
        results: Results,
        *,
        tell: Callable[[str], None] = lambda text: None,
        tries: int = TRIES,
        fatal: float = Shape.fatal,
    ) -> None:
        """`results`: of runs before, which are added to; `fatal`: in how many of a hundred the error is to be fatal."""
        self._target = target
        self.results = results
        self._tell = tell
        self._tries = tries
        shape = target.shape
        self._shape = Shape(shape.size, shape.ram, fatal)
        self._first = results.totals.next
        self._began = 0.0
        self._kept = 0.0
        self._recent: list[Case] = []
        """Those that this copy of the guest was shown last."""
        self._used = False
        """This copy of the guest was shown something."""
        self._since = self._first
        self.minimising = 0.0
        """Seconds in which no new case was shown."""
        results.totals.kernel = target.kernel

    def run(self, limits: Limits) -> None:
        """Show cases until a limit is reached; whatever ends it, what was found is in the results.

        Raises:
            SdeiError: the guest does not come back, or cannot be asked.
        """
        self._began = self._kept = time.monotonic()
        totals = self.results.totals
        before = totals.seconds
        try:
            while not limits.reached(totals.next - self._first, self._began):
                self._one(totals.next)
                totals.next += 1
                totals.seconds = before + time.monotonic() - self._began
                if time.monotonic() - self._kept > _KEEP:
                    self._kept = time.monotonic()
                    self.results.keep()
        finally:
            totals.seconds = before + time.monotonic() - self._began
            self.results.keep(whole=True)

    @property
    def executed(self) -> int:
        """How many cases this run has shown."""
        return self.results.totals.next - self._first

    @property
    def per_minute(self) -> float:
        """Cases a minute, without those that findings were made smaller by."""
        seconds = time.monotonic() - self._began - self.minimising
        return 60 * self.executed / seconds if seconds > 0 else 0.0

    def _one(self, number: int) -> None:
        made = case(self.results.totals.seed, number, self._shape)
        if not self._used:
            self._since = number
        judged = self._shown(made)
        self.results.count(judged)
        self._tell(f"case {number}: {self.per_minute:.0f} a minute, {self._words()}")
        if judged.verdict.is_finding:
            began = time.monotonic()
            self._found(judged, made, number)
            self.minimising += time.monotonic() - began
        if judged.verdict.loses_guest:
            self._fresh()

    def _words(self) -> str:
        counts = self.results.totals.counts
        said = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda each: -each[1]))
        many = len(self.results.findings)
        return f"{said}; {many} finding{'s' if many != 1 else ''}"

    def _fresh(self) -> None:
        if self._used:
            self._target.restore()
            self.results.totals.restored += 1
        self._used = False
        self._recent = []

    def _shown(self, each: Case, *, alone: bool = False) -> Judged:
        self._used = True
        self._recent = [*self._recent[1 - _SUSPECTS :], each]
        return judge(self._target.show(each.data, alone=alone), asks_to_panic=each.asks_to_panic)

    def _found(self, judged: Judged, made: Case, number: int) -> None:
        known = self.results.known(judged)
        if known is not None:
            known.hits += 1
            if known.alone or known.hits > _SECOND:
                return
        elif self.results.full:
            return
        else:
            totals = self.results.totals
            known = Finding.of(
                judged, made, seed=totals.seed, number=number, since=self._since, kernel=self._target.kernel
            )
            self.results.add(known)
        self._reduce(known, list(reversed(self._recent)))
        self.results.keep()

    def _reduce(self, finding: Finding, suspects: list[Case]) -> None:
        """Look which case it was, and for the simplest one that shows the same."""

        def is_same(each: Case) -> bool:
            self._fresh()
            self._tell(f"finding {len(self.results.findings)}: {finding.title}: trying {len(each.edits)} edits")
            return self._shown(each, alone=True).key == finding.key

        for each in suspects:
            if is_same(each):
                finding.alone = True
                finding.original = WrittenCase.of(each)
                simplest, _ = minimised(each, is_same, tries=self._tries)
                finding.case = WrittenCase.of(simplest)
                break
        self._fresh()
