"""Follows one guest after the other, and keeps what came of each scenario."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from qemu_sdei.conformance.machine import Machine
from qemu_sdei.conformance.tap import (
    NOT_SELECTED,
    Begin,
    Failed,
    Item,
    Kind,
    Mark,
    Outcome,
    Parser,
    Result,
    Text,
    Trigger,
    TriggerAt,
    TriggerMark,
)
from qemu_sdei.errors import SdeiError

MAX_FIRMWARE: Final = 16
"""Lines that are kept of what the guest says of the firmware; another firmware may say anything, and for ever."""
MAX_MARKS: Final = 16
MAX_KINDS: Final = 16
MAX_REFUSED: Final = 16


class Run:
    """What one guest after the other adds to."""

    def __init__(self, known: set[int], on_result: Callable[[Result], None]) -> None:
        self.results: dict[int, Result] = {}
        self.firmware: list[str] = []
        self.last = 0
        """The newest scenario that began, in any guest."""
        self.crash = ""
        """Why the newest guest did not come to its end."""
        self._known = known
        self._on_result = on_result
        self._not_selected: set[int] = set()
        self._current: Begin | None = None
        """The scenario that began and has no result yet."""
        self._kind: int | None = None
        """Of the newest scenario: the kind of event that it is tried with."""
        self._traces: dict[int, Sequence[Mapping[str, Any]]] = {}
        self._refused: list[str] = []
        """Why events that the scenario wanted of the host were not injected."""
        self._marks: dict[int, TriggerMark] = {}

    @property
    def place(self) -> tuple[int, int | None]:
        """Where the guests have come to."""
        return self.last, self._kind

    def again(self) -> list[str]:
        """Words for a guest that goes on behind that."""
        words = [f"after={self.last}"] if self.last else []
        return words + ([] if self._kind is None else [f"kind={self._kind + 1}"])

    def follow(self, machine: Machine, stall: float, deadline: float) -> bool:
        """Follow one guest to its end; False: it did not get through, and the scenario it was at has failed.

        `stall` is how many seconds it may say nothing of a scenario, whatever else it says. `deadline`: of all of it,
        by the monotonic clock.
        """
        parser = Parser()
        self._current, self.crash = None, ""
        self._marks.clear()
        newest = time.monotonic()
        for text in machine.follow():
            moved = False
            for item in parser.feed(text):
                moved |= not isinstance(item, Text)
                self._take(item, machine)
            now = time.monotonic()
            if moved:
                newest = now
            elif now - newest > stall:
                what = "no end of it" if text and self._current is not None else "nothing"
                self.crash = self.crash or f"{what} for {stall:g} s"
                break
            if now > deadline:
                self.crash = self.crash or "the time for all scenarios was over"
                break
        else:
            for item in parser.finish():
                self._take(item, machine)
            if not self.crash and not self._complete():
                self.crash = machine.ended or "the guest ended"
        if not self.crash:
            return True
        self._blame(machine.trace(), parser.notes(), machine.explanation() if self._current is not None else ())
        return False

    def _complete(self) -> bool:
        """The guest said something of every scenario."""
        return (self._not_selected | self.results.keys()) == self._known and self._current is None

    def _take(self, item: Item, machine: Machine) -> None:
        if isinstance(item, Begin):
            if item.number not in self._known:
                return
            if item.number != self.last:
                self._kind = None
            self._current, self.last = item, item.number
            self._refused.clear()
        elif isinstance(item, Kind):
            if self._current is not None and item.number == self.last and item.kind < MAX_KINDS:
                self._kind = item.kind
        elif isinstance(item, TriggerMark):
            if len(self._marks) < MAX_MARKS:
                self._marks[item.mark] = item
        elif isinstance(item, Mark):
            wanted = self._marks.pop(item.mark, None)
            machine.write("n" if wanted is None else self._inject(machine, wanted))
        elif isinstance(item, Trigger):
            machine.write(self._inject(machine, item))
        elif isinstance(item, Failed):
            self._traces[self.last] = machine.trace()
            machine.write("y")
        elif isinstance(item, Result):
            self._result(item)
        elif item.fatal:
            self.crash = self.crash or item.line
        elif item.line.startswith("# "):
            self._comment(item.line[2:])

    def _comment(self, line: str) -> None:
        if not self.last and len(self.firmware) < MAX_FIRMWARE and line not in self.firmware:
            self.firmware.append(line)

    def _result(self, item: Result) -> None:
        if item.number not in self._known:
            return
        if self._current is not None and item.number == self._current.number:
            self._current = None
        if item.outcome is Outcome.SKIP and item.reason == NOT_SELECTED:
            self._not_selected.add(item.number)
            return
        if item.outcome is Outcome.FAIL:
            if self._refused:
                item = replace(item, details={**item.details, "refused": tuple(self._refused)})
            item = replace(item, trace=tuple(self._traces.pop(item.number, ())))
        before = self.results.get(item.number)
        if before is None:
            self.results[item.number] = item
            self._on_result(item)
        elif before.outcome is Outcome.FAIL:  # by an earlier kind of event, which took its guest down
            also = (f"then: {item.reason}",) if item.outcome is Outcome.FAIL else ()
            notes = tuple(dict.fromkeys((*before.notes, *also, *item.notes)))
            self.results[item.number] = replace(before, notes=notes)

    def _inject(self, machine: Machine, request: Trigger) -> str:
        try:
            if isinstance(request, TriggerAt):
                machine.inject_at(request.event, request.cpu, request.watched, range(request.low, request.high))
            else:
                machine.inject(request.event, request.cpu)
        except SdeiError as error:
            self._refused = [*self._refused[: MAX_REFUSED - 1], str(error)]
            return "n"
        return "y"

    def _blame(self, trace: Sequence[Mapping[str, Any]], notes: tuple[str, ...], explanation: Sequence[str]) -> None:
        """The guest is lost: that is the failure of the scenario that was running."""
        lost, self._current = self._current, None
        if lost is not None and lost.number not in self.results:
            self.fail(lost.number, lost.name, lost.source, self.crash, notes, trace, explanation)

    def fail(
        self,
        number: int,
        name: str,
        source: str,
        got: str,
        notes: tuple[str, ...],
        trace: Sequence[Mapping[str, Any]] = (),
        explanation: Sequence[str] = (),
    ) -> None:
        """Note that a scenario did not come to its end, for the reason `got`."""
        details: dict[str, str | tuple[str, ...]] = {"expected": "the scenario ends", "got": got}
        if explanation:
            details["explain"] = tuple(explanation)
        reason = f"the scenario did not end: {got}"
        result = Result(number, name, source, Outcome.FAIL, reason, details, notes, tuple(trace))
        self.results[number] = result
        self._on_result(result)
