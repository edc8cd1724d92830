"""Runs the conformance guest: answers what it asks for, and does not let one scenario take the others with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from qemu_sdei.conformance import listing
from qemu_sdei.conformance.follow import Run
from qemu_sdei.conformance.image import ImageMachine, check_image
from qemu_sdei.conformance.listing import Scenario
from qemu_sdei.conformance.machine import Machine, OurMachine
from qemu_sdei.conformance.tap import Outcome, Result
from qemu_sdei.errors import GuestError, GuestTimeoutError, UsageError
from qemu_sdei.guest.kept import Kept
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.sdei.events import EventType, Priority
from qemu_sdei.sdei.machine_description import MachineDescription
from qemu_sdei.vm.options import BUILTIN, FLAT, GuestOptions

KERNEL: Final = f"{BUILTIN}conformance"
BLOB: Final = Path(__file__).parent.parent / "data" / "conformance.bin"
MAX_CPUS: Final = 16
MAX_WORDS: Final = 255
"""Characters of the guest's command line."""
STALL: Final = 15.0
"""Seconds without a word on a scenario after which it counts as hung; its waits end after 2, the watchdog after 12."""


@dataclass(frozen=True)
class Report:
    """What came of a run."""

    results: tuple[Result, ...]
    """Of the selected scenarios, in the order in which they ran."""
    firmware: tuple[str, ...]
    """What the guest says of the firmware."""
    seconds: float
    starts: int
    """How often a guest was started: 1, and once more for each scenario that took its guest down."""

    def count(self, outcome: Outcome) -> int:
        """Number of scenarios that ended so."""
        return sum(result.outcome is outcome for result in self.results)

    @property
    def ok(self) -> bool:
        """Nothing failed, and something ran."""
        return self.count(Outcome.FAIL) == 0 and self.count(Outcome.PASS) > 0


@dataclass(frozen=True)
class Own:
    """Scenarios of a user's own, and the guest that was built with them."""

    scenarios: tuple[Scenario, ...]
    guest: Path


def event_words(profile: MachineDescription) -> list[str]:
    """Words that tell the guest which static events to use."""
    words = []
    for word, kind, priority in (
        ("private", EventType.PRIVATE, Priority.NORMAL),
        ("critical", EventType.PRIVATE, Priority.CRITICAL),
        ("shared", EventType.SHARED, Priority.NORMAL),
        ("shared_critical", EventType.SHARED, Priority.CRITICAL),
    ):
        for event in profile.events:
            if event.number and (event.type, event.priority) == (kind, priority):
                words.append(f"{word}={event.number:#x}")
                break
    return words


def run(
    options: GuestOptions,
    *,
    scenarios: str = "",
    own: Own | None = None,
    progress: Progress = no_progress,
    on_result: Callable[[Result], None] = lambda result: None,
    timeout: float = 300.0,
    stall: float = STALL,
    keep: Callable[[], Kept | None] = lambda: None,
) -> Report:
    """Run the scenarios that `scenarios` selects (all if empty) on the machine of `options`.

    `options.append` is added to the guest's command line. `on_result` is told each result as it comes. `keep` says for
    each guest that is started where its trace and console are to be kept.

    Raises:
        UsageError: filter, events or machine cannot be. GuestError: the guest did not get to its first scenario.
        GuestTimeoutError: all of it took longer than `timeout` seconds.
    """
    profile = MachineDescription.default() if options.events is None else MachineDescription.load(Path(options.events))
    words = ["trigger=console", *event_words(profile)]
    kernel = KERNEL if own is None else f"{FLAT}{own.guest}"

    def start(line: str) -> AbstractContextManager[Machine]:
        return OurMachine(replace(options, kernel=kernel, append=line), keep())

    suite = _Suite(options, words, scenarios, own, on_result, progress, timeout, stall)
    suite.follow(start)
    if suite.lost is not None:
        raise suite.lost
    return suite.report()


def run_image(
    image: str | Path,
    options: GuestOptions,
    *,
    entry: int | None,
    scenarios: str = "",
    own: Own | None = None,
    progress: Progress = no_progress,
    on_result: Callable[[Result], None] = lambda result: None,
    timeout: float = 300.0,
    stall: float = STALL,
) -> Report:
    """Run them on a machine whose firmware is `image`, which enters the guest at `entry` (None: it has it itself).

    Whatever the image does, there is a report: a scenario that it did not bring to an end has failed.

    Raises:
        UsageError: filter, image or machine cannot be. LaunchError: there is no QEMU that starts.
    """
    from qemu_sdei.vm.machine_checks import check_machine

    path = check_image(image, entry, check_machine(options)[1])
    guest = (BLOB if own is None else own.guest).read_bytes()

    def start(line: str) -> AbstractContextManager[Machine]:
        return ImageMachine(options, path, entry, guest, line)

    suite = _Suite(options, [], scenarios, own, on_result, progress, timeout, stall)
    suite.follow(start)
    suite.blame_the_rest()
    return suite.report()


class _Suite:
    """One guest after the other, until each scenario has a result or none comes any more."""

    def __init__(
        self,
        options: GuestOptions,
        words: list[str],
        scenarios: str,
        own: Own | None,
        on_result: Callable[[Result], None],
        progress: Progress,
        timeout: float,
        stall: float,
    ) -> None:
        if options.smp > MAX_CPUS:
            raise UsageError(f"the conformance guest uses up to {MAX_CPUS} vCPUs, not {options.smp}")
        known = (*listing.builtin(), *(own.scenarios if own is not None else ()))
        self._selected = listing.select(known, scenarios)
        self._words = [f"smp={options.smp}", *words, *([f"filter={scenarios}"] if scenarios else [])]
        self._append = options.append
        self._progress = progress
        self._stall = stall
        self._began = time.monotonic()
        self._deadline = self._began + timeout
        self._starts = 0
        self._run = Run({scenario.number for scenario in known}, on_result)
        self.lost: GuestError | None = None
        """Why there are scenarios without a result."""

    def _line(self) -> str:
        line = " ".join([*self._words, *self._run.again(), self._append]).strip()
        if len(line) > MAX_WORDS:
            raise UsageError(f"the guest's command line would have {len(line)} characters, {MAX_WORDS} is the most")
        return line

    def follow(self, start: Callable[[str], AbstractContextManager[Machine]]) -> None:
        """Start guests by `start`, which is given the command line."""
        while True:
            again = f" again, after scenario {self._run.last}" if self._run.last else ""
            line, before = self._line(), self._run.place
            self._starts += 1
            self._progress(f"starting the conformance guest{again}")
            with start(line) as machine:
                self._progress("running the scenarios")
                done = self._run.follow(machine, self._stall, self._deadline)
                console = machine.console()
            if done:
                return
            if time.monotonic() > self._deadline:
                self.lost = GuestTimeoutError(
                    f"the conformance suite did not end in time, at scenario {self._run.last}", console=console
                )
                return
            if self._run.place == before:
                which = "its next" if self._run.last else "a"
                self.lost = GuestError(f"the conformance guest ended before {which} scenario: {self._run.crash}")
                return

    def blame_the_rest(self) -> None:
        """What has no result was not reached: that is a failure too."""
        for scenario in self._selected:
            if scenario.number not in self._run.results and self.lost is not None:
                self._run.fail(scenario.number, scenario.name, scenario.source, self.lost.message, ())

    def report(self) -> Report:
        """All results."""
        chosen = [s.number for s in self._selected]
        results = [self._run.results[number] for number in chosen if number in self._run.results]
        return Report(tuple(results), tuple(self._run.firmware), time.monotonic() - self._began, self._starts)
