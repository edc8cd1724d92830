"""Tries sequence after sequence on two firmwares, and makes each that shows a difference short."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

from qemu_sdei.differential import rules
from qemu_sdei.differential.allowed import Allowed
from qemu_sdei.differential.answers import Transcript
from qemu_sdei.differential.generate import Choice, Generator
from qemu_sdei.differential.judge import SILENT, Verdict, judge
from qemu_sdei.differential.sequence import Script, embeds
from qemu_sdei.differential.session import Session
from qemu_sdei.differential.shrink import shrink
from qemu_sdei.errors import GuestError
from qemu_sdei.host.progress import Progress, no_progress

BATCH: Final = 12
"""Sequences that are typed ahead."""
_FRESH: Final = 60
"""Tries for a sequence that does not contain what is known already."""
_HASTE: Final = 3.0
"""Seconds that a sequence may take while one that hangs is made shorter."""
TRACE: Final = 4000


@dataclass(frozen=True)
class Plan:
    """How much is tried.

    Attributes:
        seed: what everything follows from.
        count: sequences.
        seconds: after so long no new sequence is begun.
        most: different findings after which it ends.
    """

    seed: int = 1
    count: int = 1000
    seconds: float = 300.0
    most: int = 12


@dataclass(frozen=True)
class Finding:
    """One difference, made short.

    Attributes:
        verdict: of the short sequence.
        clause: the rule that ours follows.
        number: which sequence showed it first, from 1 on.
        original: that sequence.
        seen: sequences that showed it.
        steady: it showed again in new guests when it was short.
    """

    verdict: Verdict
    clause: str
    number: int
    original: Script
    seen: int = 1
    steady: bool = True


@dataclass
class Outcome:
    """What came of a hunt."""

    findings: list[Finding] = field(default_factory=list)
    allowed: Counter[Allowed] = field(default_factory=Counter)
    """Differences that may be, and in how many sequences."""
    sequences: int = 0
    calls: int = 0
    """Calls in them, as they were generated."""
    seconds: float = 0.0
    unsteady: list[Verdict] = field(default_factory=list)
    """Differences that did not come again in new guests: of time, or of chance."""
    ended: str = ""
    """Why it ended before all sequences were tried."""
    broken: bool = False
    """It ended because a side does not begin any more."""


class Hunt:
    """Two firmwares and what was found of them."""

    def __init__(
        self,
        ours: Session,
        theirs: Session,
        choice: Choice,
        plan: Plan,
        *,
        progress: Progress = no_progress,
        on_finding: Callable[[Finding], None] = lambda finding: None,
    ) -> None:
        """`ours` is the one whose rules count. `on_finding` is told each finding when it is short."""
        self._ours, self._theirs = ours, theirs
        self._choice = choice
        self._plan = plan
        self._progress = progress
        self._on_finding = on_finding
        self._generator = Generator(plan.seed, choice)
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._began = time.monotonic()
        self.outcome = Outcome()

    def close(self) -> None:
        """End what still runs."""
        self._ours.stop.set()
        self._theirs.stop.set()
        self._pool.shutdown()

    # ---- running -----------------------------------------------------------------------------------------------------

    def _both(self, scripts: Sequence[Script]) -> list[Verdict]:
        """What each comes to; the two firmwares run at the same time."""
        ours = self._pool.submit(self._ours.run, scripts)
        theirs = self._pool.submit(self._theirs.run, scripts)
        return self._judged(scripts, ours.result(), theirs.result())

    @staticmethod
    def _judged(scripts: Sequence[Script], ours: list[Transcript], theirs: list[Transcript]) -> list[Verdict]:
        return [judge(*one) for one in zip(scripts, ours, theirs, strict=True)]

    def again(self, script: Script) -> Verdict:
        """The same in new guests."""
        ours = self._pool.submit(self._ours.again, script)
        theirs = self._pool.submit(self._theirs.again, script)
        return judge(script, ours.result(), theirs.result())

    def run(self) -> Outcome:
        """All of it. Raises `GuestError`: a side does not begin at all."""
        self._began = time.monotonic()
        both = [self._pool.submit(side.begin) for side in (self._theirs, self._ours)]
        for one in both:
            one.result()
        try:
            while self._goes_on():
                self._batch()
        except GuestError as error:
            self.outcome.ended, self.outcome.broken = str(error), True
        self.outcome.seconds = time.monotonic() - self._began
        return self.outcome

    def replay(self, script: Script) -> Outcome:
        """Only this one, in new guests, as it is. Raises `GuestError`."""
        self._began = time.monotonic()
        verdict = self.again(script)
        self.outcome.sequences, self.outcome.calls = 1, script.calls
        self.outcome.allowed.update(verdict.allowed)
        if verdict.first is not None:
            machine = self._ours.machine
            trace = machine.trace(TRACE) if machine is not None else ()
            self.outcome.findings.append(Finding(verdict, rules.clause(verdict, trace), 1, script))
        self.outcome.seconds = time.monotonic() - self._began
        return self.outcome

    def _goes_on(self) -> bool:
        plan, outcome = self._plan, self.outcome
        if len(outcome.findings) >= plan.most:
            outcome.ended = f"{plan.most} differences were found"
        elif time.monotonic() - self._began >= plan.seconds:
            outcome.ended = f"{plan.seconds / 60:g} minutes were over"
        return outcome.sequences < plan.count and not outcome.ended

    def _batch(self) -> None:
        outcome = self.outcome
        first = outcome.sequences + 1
        scripts = [self._new() for _ in range(min(BATCH, self._plan.count - outcome.sequences))]
        found = len(outcome.findings)
        self._progress(f"sequence {first} of {self._plan.count}; {found} difference{'s' if found != 1 else ''}")
        for number, verdict in enumerate(self._both(scripts), first):
            outcome.sequences += 1
            outcome.calls += verdict.script.calls
            outcome.allowed.update(verdict.allowed)
            if verdict.first is not None and self._goes_on_in_batch():
                self._found(number, verdict)

    def _goes_on_in_batch(self) -> bool:
        return len(self.outcome.findings) < self._plan.most

    def _new(self) -> Script:
        """A sequence that shows nothing which is known already, if there is one."""
        for _ in range(_FRESH):
            script = self._generator.script()
            known = self._known(script)
            if known is None:
                break
        return script

    def _known(self, script: Script) -> int | None:
        """Which finding is in it."""
        for index, finding in enumerate(self.outcome.findings):
            if embeds(script, finding.verdict.script, self._choice.cpus, finding.verdict.ran):
                return index
        return None

    # ---- one that shows something ------------------------------------------------------------------------------------

    def _found(self, number: int, verdict: Verdict) -> None:
        outcome = self.outcome
        if self._is_known(verdict.script):
            return
        self._progress(f"sequence {number} differs: does it again?")
        second = self.again(verdict.script)
        if second.first is None:
            outcome.unsteady.append(verdict)
            return
        finding = self.shortened(number, second)
        if self._is_known(finding.verdict.script):
            return
        outcome.findings.append(finding)
        self._on_finding(finding)

    def _is_known(self, script: Script) -> bool:
        """Whether a finding is in it, which has been seen once more then."""
        known = self._known(script)
        if known is None:
            return False
        finding = self.outcome.findings[known]
        self.outcome.findings[known] = replace(finding, seen=finding.seen + 1)
        return True

    def shortened(self, number: int, verdict: Verdict) -> Finding:
        """The finding that `verdict` becomes."""
        tried = 0
        patience = self._ours.patience, self._theirs.patience
        if verdict.symptom[0] == SILENT:
            self._theirs.patience = min(self._theirs.patience, _HASTE)

        def shows(script: Script) -> bool:
            nonlocal tried
            tried += 1
            self._progress(f"sequence {number} made shorter: {len(script.ops())} operations, trial {tried}")
            return self._both([script])[0].symptom == verdict.symptom

        try:
            short = shrink(verdict.script, shows)
        finally:
            self._ours.patience, self._theirs.patience = patience
        last = self.again(short)
        if last.first is None:
            return Finding(verdict, rules.clause(verdict), number, verdict.script, steady=False)
        machine = self._ours.machine
        trace = machine.trace(TRACE) if machine is not None else ()
        return Finding(last, rules.clause(last, trace), number, verdict.script)
