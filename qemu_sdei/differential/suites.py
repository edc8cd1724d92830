"""The conformance suite on both firmwares, scenario by scenario."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from qemu_sdei import conformance
from qemu_sdei.conformance import Outcome, Report, Result
from qemu_sdei.differential.sides import ImageSide, OurSide
from qemu_sdei.errors import GuestError
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.vm.options import GuestOptions

TIMEOUT: Final = 600.0
SUITE_CPUS: Final = 4


@dataclass(frozen=True)
class SuiteDifference:
    """A scenario that came to two ends."""

    number: int
    name: str
    source: str
    ours: str
    theirs: str
    reason: str
    """Of the one that failed."""


@dataclass(frozen=True)
class Suites:
    """What came of both runs.

    Attributes:
        same: scenarios that both passed, or both failed.
        differ: those that only one passed.
        skipped: those that one or both skipped: there is nothing to compare.
        broken: why a side did not come to its end; empty: both did.
    """

    same: int
    differ: tuple[SuiteDifference, ...]
    skipped: int
    broken: str = ""


def run(ours: OurSide, theirs: OurSide | ImageSide, progress: Progress = no_progress) -> Suites:
    """Both, one after the other: the suite has limits of time. Raises `UsageError`."""
    try:
        progress("the conformance suite on our firmware")
        left = conformance.run(_options(ours), progress=progress, timeout=TIMEOUT)
        progress(f"the conformance suite on {theirs.name}")
        if isinstance(theirs, ImageSide):
            options = replace(theirs.options, smp=max(theirs.options.smp, SUITE_CPUS))
            right = conformance.run_image(theirs.image, options, entry=theirs.entry, progress=progress, timeout=TIMEOUT)
        else:
            right = conformance.run(_options(theirs), progress=progress, timeout=TIMEOUT)
    except GuestError as error:
        return Suites(0, (), 0, str(error))
    return compared(left, right)


def _options(side: OurSide) -> GuestOptions:
    return replace(side.options, smp=max(side.options.smp, SUITE_CPUS))


def compared(ours: Report, theirs: Report) -> Suites:
    """Two reports as one."""
    other = {result.number: result for result in theirs.results}
    same = skipped = 0
    differ: list[SuiteDifference] = []
    for result in ours.results:
        their = other.get(result.number)
        if their is None or Outcome.SKIP in (result.outcome, their.outcome):
            skipped += 1
        elif result.outcome is their.outcome:
            same += 1
        else:
            differ.append(_difference(result, their))
    return Suites(same, tuple(differ), skipped)


def _difference(ours: Result, theirs: Result) -> SuiteDifference:
    failed = ours if ours.outcome is Outcome.FAIL else theirs
    words = (ours.outcome.value, theirs.outcome.value)
    return SuiteDifference(ours.number, ours.name, ours.source, *words, failed.reason)
