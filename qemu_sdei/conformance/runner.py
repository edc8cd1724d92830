"""Runs the conformance guest: answers what it asks for, and does not let one scenario take the others with it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from qemu_sdei.conformance.tap import (
    LAST,
    NOT_SELECTED,
    Begin,
    Failed,
    Item,
    Outcome,
    Parser,
    Result,
    Trigger,
)
from qemu_sdei.errors import GuestError, GuestTimeoutError, SdeiError, UsageError
from qemu_sdei.machine.guest import Guest
from qemu_sdei.machine.options import BUILTIN, GuestOptions, Progress, no_progress
from qemu_sdei.sdei.events import EventType, Priority
from qemu_sdei.sdei.profile import Profile

KERNEL: Final = f"{BUILTIN}conformance"
MAX_CPUS: Final = 16
MAX_WORDS: Final = 255
"""Characters of the guest's command line."""
STALL: Final = 15.0
"""Seconds of silence after which a scenario counts as hung; its own waits end after 2."""
TRACE: Final = 24
"""Trace records that a failure keeps."""
_FILTER: Final = re.compile(r"[a-z]+|\d{1,3}(-\d{1,3})?")


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


def event_words(profile: Profile) -> list[str]:
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


def check_filter(text: str) -> str:
    """`text` if it can be a filter: numbers, ranges and groups, separated by commas. Raises `UsageError`."""
    for part in text.split(",") if text else ():
        if _FILTER.fullmatch(part) is None:
            raise UsageError(f"filter {part!r} is no number (13), range (12-21) or group (bind)")
    return text


@dataclass
class _Run:
    """What one guest after the other adds to."""

    results: dict[int, Result] = field(default_factory=dict)
    firmware: list[str] = field(default_factory=list)
    not_selected: set[int] = field(default_factory=set)
    current: Begin | None = None
    """The scenario that began and has no result yet."""
    last: int = 0
    """The newest scenario that began, in any guest."""
    crash: str = ""
    refused: list[str] = field(default_factory=list)
    """Why events that the scenario wanted of the host were not injected."""


def run(
    options: GuestOptions,
    *,
    scenarios: str = "",
    progress: Progress = no_progress,
    on_result: Callable[[Result], None] = lambda result: None,
    timeout: float = 300.0,
    stall: float = STALL,
) -> Report:
    """Run the scenarios that `scenarios` selects (all if empty) on the machine of `options`.

    `options.append` is added to the guest's command line. `on_result` is told each result as it comes.

    Raises:
        UsageError: filter, events or machine cannot be. GuestError: the guest did not get to its first scenario.
        GuestTimeoutError: all of it took longer than `timeout` seconds.
    """
    check_filter(scenarios)
    if options.smp > MAX_CPUS:
        raise UsageError(f"the conformance guest uses up to {MAX_CPUS} vCPUs, not {options.smp}")
    profile = Profile.default() if options.profile is None else Profile.load(Path(options.profile))
    words = [f"smp={options.smp}", "trigger=console", *event_words(profile)]
    if scenarios:
        words.append(f"filter={scenarios}")
    began = time.monotonic()
    state = _Run()
    starts = 0
    while True:
        again = [f"after={state.last}"] if state.last else []
        line = " ".join([*words, *again, options.append]).strip()
        if len(line) > MAX_WORDS:
            raise UsageError(f"the guest's command line would have {len(line)} characters, {MAX_WORDS} is the most")
        starts += 1
        progress("starting the conformance guest" + (f" again, after scenario {state.last}" if again else ""))
        before = state.last
        done = _one_guest(
            replace(options, kernel=KERNEL, append=line), state, on_result, began + timeout, stall, progress
        )
        if done:
            break
        if state.last == before:
            raise GuestError(
                f"the conformance guest ended before {'its next' if before else 'a'} scenario: {state.crash}"
            )
    if not state.results:
        raise UsageError(f"no scenario is called {scenarios!r}: see docs/reference/conformance.md for the list")
    return Report(tuple(state.results.values()), tuple(state.firmware), time.monotonic() - began, starts)


def _one_guest(
    options: GuestOptions,
    state: _Run,
    on_result: Callable[[Result], None],
    deadline: float,
    stall: float,
    progress: Progress,
) -> bool:
    """Follow one guest to its end; False: it did not get through, and the scenario it was at has failed."""
    parser = Parser()
    state.current, state.crash = None, ""
    with Guest(options, progress=no_progress) as guest:
        newest = time.monotonic()
        progress("running the scenarios")
        for text in guest.follow():
            now = time.monotonic()
            for item in parser.feed(text):
                _take(item, guest, state, on_result)
            if text:
                newest = now
            elif now - newest > stall:
                state.crash = f"nothing for {stall:g} s"
                _blame(state, guest, on_result)
                return False
            if now > deadline:
                raise GuestTimeoutError(
                    f"the conformance suite did not end in time, at scenario {state.last}",
                    console=guest.console_text.last_lines(),
                )
        for item in parser.finish():
            _take(item, guest, state, on_result)
    if state.crash or not _complete(state):
        state.crash = state.crash or "the guest ended"
        _blame(state, None, on_result)
        return False
    return True


def _complete(state: _Run) -> bool:
    """The guest said something of every scenario."""
    return len(state.not_selected | state.results.keys()) == LAST and state.current is None


def _take(item: Item, guest: Guest, state: _Run, on_result: Callable[[Result], None]) -> None:
    if isinstance(item, Begin):
        state.current, state.last = item, item.number
        state.refused.clear()
    elif isinstance(item, Trigger):
        guest.write(_inject(guest, item, state))
    elif isinstance(item, Failed):
        failed = state.results.get(item.number)
        if failed is not None:
            state.results[item.number] = replace(failed, trace=_trace(guest))
        guest.write("y")
    elif isinstance(item, Result):
        if state.current is not None and item.number == state.current.number:
            state.current = None
        if item.outcome is Outcome.SKIP and item.reason == NOT_SELECTED:
            state.not_selected.add(item.number)
        elif item.number not in state.results:
            if item.outcome is Outcome.FAIL and state.refused:
                item = replace(item, details={**item.details, "refused": tuple(state.refused)})
            state.results[item.number] = item
            on_result(item)
    elif item.fatal:
        state.crash = state.crash or item.line
    elif item.line.startswith("# ") and item.line[2:] not in state.firmware:
        state.firmware.append(item.line[2:])


def _inject(guest: Guest, request: Trigger, state: _Run) -> str:
    try:
        guest.inject(request.event, request.cpu)
    except SdeiError as error:
        state.refused.append(str(error))
        return "n"
    return "y"


def _trace(guest: Guest) -> tuple[dict[str, object], ...]:
    try:
        return tuple(guest.trace(TRACE))
    except SdeiError:
        return ()


def _blame(state: _Run, guest: Guest | None, on_result: Callable[[Result], None]) -> None:
    """The guest is lost: that is the failure of the scenario that was running."""
    lost = state.current
    if lost is None or lost.number in state.results:
        return
    reason = f"the scenario did not end: {state.crash}"
    details = {"expected": "the scenario ends", "got": state.crash}
    trace = () if guest is None else _trace(guest)
    result = Result(lost.number, lost.name, lost.source, Outcome.FAIL, reason, details, trace=trace)
    state.results[lost.number] = result
    on_result(result)
