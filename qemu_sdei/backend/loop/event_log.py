"""The event log: what happens in a guest. It is kept in the trace ring, and passed on to whoever listens."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Container
from typing import Any, Final

from qemu_sdei import __version__
from qemu_sdei.backend.loop.state_times import StateTimes
from qemu_sdei.rundir import WARNING
from qemu_sdei.trace.ring import Ring
from qemu_sdei.trace.slots import CAUSES, Outcome, Type

Listener = Callable[[dict[str, Any]], None]
_KINDS: Final = {"DISPATCH": "deliver", "COMPLETE": "complete"}


def complain(text: str) -> None:
    """Tell the user something: it is in the log, and shown when the guest has ended."""
    with contextlib.suppress(OSError):
        print(f"{WARNING}{text}", file=sys.stderr, flush=True)


class EventLog:
    """Keeps what happens in one guest, and passes it on.

    Attributes:
        clock: gives the time in nanoseconds.
        ring: where it is kept.
        listeners: called with each thing as it happens.
        rejected: how many notes say that something was not as it must be.
        times: since when events and vCPUs are as they are.
    """

    def __init__(self, ring: Ring, nr_cpus: int) -> None:
        self.clock = ring.clock
        self.ring = ring
        self.times = StateTimes(ring.clock, nr_cpus)
        self.rejected = 0
        self.listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Have `listener` called with each thing that happens: type, time and details."""
        if listener not in self.listeners:
            self.listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        """Stop that."""
        if listener in self.listeners:
            self.listeners.remove(listener)

    def look(self) -> int:
        """The time of now, for what follows until the next look: the hot path reads the clock now and then."""
        self.times.now = now = self.clock()
        return now

    def transition_hook(
        self, ready: Container[int] = (), changes: Callable[[int], None] = lambda event: None
    ) -> Callable[[int, int, int, int, str], None]:
        """What the dispatcher calls for each transition, twice for each event: a closure is a third cheaper than a
        method. The first one that comes of a call goes into the call's slot, which saves a record. `changes` is called
        with each event that is in `ready`.
        """
        ring, clock, listeners, tell = self.ring, self.clock, self.listeners, self._tell
        keep, seen = ring.keep, self.times
        of_cause: dict[str, dict[int, tuple[list[int], list[int] | None]]] = {cause: {} for cause in CAUSES}
        """Of each cause and event that there was: the words of a transition by the old state, and where its time goes.
        To shift and combine numbers of more than 30 bits costs twice as much as to look one up.
        """

        def first(event: int, cause: str) -> tuple[list[int], list[int] | None]:
            number = CAUSES.index(cause) + 1
            times = seen.times_of(cause)
            found = (
                [event << 32 | number << 24 | old << 16 for old in range(8)],
                None if times is None else times[event],
            )
            of_cause[cause][event] = found
            return found

        def transition(event: int, pe: int, old: int, new: int, cause: str) -> None:
            if event in ready:
                changes(event)
            try:
                words, times = of_cause[cause][event]
            except KeyError:
                words, times = first(event, cause)
            if ring.word:
                keep(Type.TRANSITION, pe if pe >= 0 else None, words[old])
            else:
                ring.word = words[old]
            if times is not None:
                times[pe] = seen.now
            if listeners:
                kind = _KINDS.get(cause, "transition")
                fields = {"event": event, "from": old, "to": new, "cause": cause}
                tell({"time_ns": clock(), "type": kind, "pe": pe, **fields})

        return transition

    def note(self, name: str, pe: int | None, **details: Any) -> None:
        """Keep something rare with the time of now, and pass it on. The name "reject" counts as a rejection."""
        if name != "unknown":  # the call's own record says so
            self.ring.text(name, pe, details)
        if pe is not None:
            self.times.note(name, pe)
        if name == "reject":
            self.rejected += 1
        if self.listeners:
            self._tell({"time_ns": self.clock(), "type": name, "pe": pe, **details})

    def begun(self, what: str) -> None:
        """From now on this backend serves the guest: "started", "took-over" from another one that died, "incoming"."""
        self.ring.text("backend", None, {"what": what, "pid": os.getpid(), "program": __version__})

    def triggered(self, event: int, pe: int | None, *, merged: bool) -> None:
        """Keep a trigger of the host's."""
        self.ring.keep(Type.TRIGGER, pe, event, Outcome.MERGED if merged else Outcome.PENDING)

    def _tell(self, record: dict[str, Any]) -> None:
        for listener in list(self.listeners):
            listener(record)
