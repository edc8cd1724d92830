"""One firmware that sequences are tried on: guests are started as often as it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from qemu_sdei.conformance.machine import Machine
from qemu_sdei.differential.answers import MAX_RECORDS, Ask, Bad, End, Facts, Item, Over, Parser, Record, Transcript
from qemu_sdei.differential.sequence import INJECT, Script
from qemu_sdei.errors import GuestError, SdeiError

Start = Callable[[], AbstractContextManager[Machine]]

START: Final = 60.0
"""Seconds until the guest must have said what firmware it found."""
ANSWER: Final = 10.0
"""Seconds that a sequence may take: the guest's own waits end after 2.5, and the first that does ends the sequence."""
_TRIES: Final = 3
"""Times that a sequence is typed whose records did not arrive whole."""


class StoppedError(SdeiError):
    """The comparison was ended from outside."""


class Session(AbstractContextManager["Session"]):
    """The guests of one firmware, one after the other. One thread at a time."""

    def __init__(
        self, name: str, start: Start, *, patience: float = ANSWER, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`name` is for people; `patience`: seconds that a sequence may take, by `clock`."""
        self.name = name
        self.facts = Facts({})
        self.starts = 0
        self.patience = patience
        self.stop = threading.Event()
        """Whoever sets it ends whatever goes on here."""
        self._clock = clock
        self._start = start
        self._guest: AbstractContextManager[Machine] | None = None
        self._machine: Machine | None = None
        self._items: Iterator[Item | None] = iter(())
        self._number = 0
        self._used = False
        """Something was typed at the guest that there is."""

    def __exit__(self, *_: Any) -> None:
        self.end()

    def end(self) -> None:
        """End the guest that there is."""
        guest, self._guest, self._machine = self._guest, None, None
        if guest is not None:
            guest.__exit__(None, None, None)

    @property
    def machine(self) -> Machine | None:
        """The guest that there is."""
        return self._machine

    def begin(self) -> Facts:
        """Start a guest if there is none, and say what it found. Raises `GuestError`: it did not come so far."""
        if self._machine is not None:
            return self.facts
        self.starts += 1
        self._used = False
        self._guest = self._start()
        self._machine = self._guest.__enter__()
        self._items = self._follow(self._machine)
        deadline = self._clock() + START
        why = ""
        for item in self._items:
            if isinstance(item, Facts):
                self.facts = item
                return item
            if isinstance(item, Over):
                why = item.why
            elif self._clock() > deadline:
                why = f"nothing of it for {START:g} s"
            if why:
                break
        why = why or self._machine.ended or "the machine ended"
        console = self._machine.console()
        self.end()
        raise GuestError(f"{self.name}: the guest did not begin: {why}", console=console)

    def _follow(self, machine: Machine) -> Iterator[Item | None]:
        """Items as they come, None now and then."""
        parser = Parser()
        for text in machine.follow():
            if self.stop.is_set():
                raise StoppedError("the comparison was ended")
            yield from parser.feed(text)
            yield None

    def run(self, scripts: Sequence[Script]) -> list[Transcript]:
        """What came of each, in clean guests. Raises `GuestError`: no guest begins any more."""
        results: list[Transcript] = []
        spoiled = 0
        while len(results) < len(scripts):
            self.begin()
            for transcript in self._type(scripts[len(results) :]):
                if transcript is None:
                    spoiled += 1
                    if spoiled < _TRIES:
                        break
                    transcript = Transcript((), "its answers did not arrive whole")
                spoiled = 0
                results.append(transcript)
                if transcript.crash or transcript.dirty:
                    break
            if len(results) < len(scripts) or (results and (results[-1].crash or results[-1].dirty)):
                self.end()
        return results

    def again(self, script: Script) -> Transcript:
        """The same in a guest of its own."""
        if self._used:
            self.end()
        return self.run([script])[0]

    def _type(self, scripts: Sequence[Script]) -> Iterator[Transcript | None]:
        """All of them in this guest, as far as it goes; None: what came cannot be read."""
        machine = self._machine
        assert machine is not None
        first = self._number + 1
        self._number += len(scripts)
        self._used = True
        typed = 0
        for at in range(len(scripts)):
            number = first + at
            if at >= typed:
                # What is typed ahead stands before the answer to a request: the last one of them may have some.
                asks = (n for n in range(at, len(scripts)) if _asks(scripts[n]))
                typed = next(asks, len(scripts) - 1) + 1
                machine.write("".join(scripts[n].line(first + n) for n in range(at, typed)))
            records: list[Record] = []
            end = self._until_end(machine, number, records)
            if isinstance(end, str):
                yield Transcript(tuple(records), end)
            elif end is None or end.records != len(records):
                yield None
            else:
                yield Transcript(tuple(records), dirty=end.dirty)

    def _until_end(self, machine: Machine, number: int, records: list[Record]) -> End | str | None:
        """How sequence `number` ended; in words if the guest did."""
        deadline = self._clock() + self.patience
        for item in self._items:
            if isinstance(item, Record):
                if len(records) >= MAX_RECORDS:
                    return "records without end"
                records.append(item)
            elif isinstance(item, End):
                if item.number == number:
                    return item
            elif isinstance(item, Bad):
                return None
            elif isinstance(item, Facts):
                return "the guest began again: a reset"
            elif isinstance(item, Over):
                return item.why
            elif isinstance(item, Ask):
                machine.write(_inject(machine, item))
            if self._clock() > deadline:
                return f"no end of it for {self.patience:g} s"
        return machine.ended or "the machine ended"


def _asks(script: Script) -> bool:
    return any(step.op.what == INJECT for step in script.steps)


def _inject(machine: Machine, ask: Ask) -> str:
    try:
        machine.inject(ask.event, ask.cpu)
    except SdeiError:
        return "n"
    return "y"
