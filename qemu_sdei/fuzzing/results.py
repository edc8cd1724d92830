"""The results of a fuzzing run: counts, findings, and where to continue, in a directory if the user keeps them.

campaign.json   seed, source, the next case, counts, over all runs
finding-N.json  each finding; finding-N.record.json is its record, for `ras inject --record`
state/          the guest as it was saved at the start
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qemu_sdei import codec
from qemu_sdei.errors import UsageError
from qemu_sdei.fuzzing.findings import VERSION, Finding, read_json, write_json
from qemu_sdei.fuzzing.verdicts import Judged, Verdict
from qemu_sdei.ras.mutate import Case

STATE: Final = "state"
CAMPAIGN: Final = "campaign.json"
FORMAT: Final = "qemu-sdei-ras-fuzz"
MAX_FINDINGS: Final = 500


@dataclass
class Totals:
    """What is written of a run; it goes on by the same seed."""

    seed: int
    source: str
    kernel: str = ""
    next: int = 0
    """Number of the case that comes next."""
    cases: int = 0
    restored: int = 0
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    """How many cases had each verdict."""


@dataclass
class Results:
    """Totals and findings of all runs so far."""

    totals: Totals
    findings: list[Finding] = field(default_factory=list)
    directory: Path | None = None
    """Where they are kept; None: made when there is something to keep."""
    fallback: Path | None = None
    """Where findings are kept if nobody said where."""
    written: dict[str, Path] = field(default_factory=dict)
    """File of each finding, by its key."""

    def count(self, judged: Judged) -> None:
        """A case has been shown."""
        self.totals.counts[judged.verdict.value] = self.totals.counts.get(judged.verdict.value, 0) + 1
        self.totals.cases += 1

    def known(self, judged: Judged) -> Finding | None:
        """The finding of the same fault."""
        return next((each for each in self.findings if each.key == judged.key), None)

    def add(self, finding: Finding) -> None:
        """A new one."""
        self.findings.append(finding)

    @property
    def full(self) -> bool:
        """There are as many findings as are told apart."""
        return len(self.findings) >= MAX_FINDINGS

    def keep(self, *, whole: bool = False) -> None:
        """Write what is new; `whole`: each finding anew, of which hits have been counted. Raises `UsageError`."""
        directory = self.directory
        if directory is None:
            if not self.findings or self.fallback is None:
                return
            directory = self.directory = self.fallback
        make(directory)
        write_json(directory / CAMPAIGN, {"format": FORMAT, "version": VERSION, **codec.to_data(self.totals)})
        for number, each in enumerate(self.findings, 1):
            path = directory / f"finding-{number}.json"
            if whole or each.key not in self.written:
                each.write(path)
                self.written[each.key] = path

    @classmethod
    def read(cls, directory: Path) -> Results:
        """Those that were kept. Raises `UsageError`: there are none."""
        what = "run of `ras fuzz`"
        document = read_json(directory / CAMPAIGN, FORMAT, what)
        try:
            totals = codec.from_data(Totals, document)
            counts = totals.counts.items()
            if any(count < 0 or name not in {each.value for each in Verdict} for name, count in counts):
                raise ValueError("its counts cannot be")
            if min(totals.next, totals.cases, totals.restored) < 0 or not 0 <= totals.seconds < 1e12:
                raise ValueError("its numbers cannot be")
        except ValueError as error:
            raise UsageError(f"{directory / CAMPAIGN} holds no {what}: {error}") from None
        found = cls(totals, directory=directory)
        for number in range(1, MAX_FINDINGS + 1):
            path = directory / f"finding-{number}.json"
            if not path.exists():
                break
            found.add(Finding.read(path))
            found.written[found.findings[-1].key] = path
        return found


def make(directory: Path) -> None:
    """Make a directory if it is not there. Raises `UsageError`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"directory {directory} cannot be made: {error.strerror}") from None


__all__ = ["CAMPAIGN", "STATE", "Case", "Results", "Totals", "make"]
