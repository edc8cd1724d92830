"""The event log: what happens in a guest. It is kept in the trace ring, and passed on to whoever listens."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, Final

from qemu_sdei.rundir import WARNING
from qemu_sdei.trace.ring import Ring
from qemu_sdei.trace.slots import Outcome, Type

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
    """

    def __init__(self, ring: Ring) -> None:
        self.clock = ring.clock
        self.ring = ring
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

    def transition_hook(self) -> Callable[[int, int, int, int, str], None]:
        """What the dispatcher calls for each transition, twice for each event: a closure is a third cheaper than a
        method.
        """
        keep, clock, listeners, tell = self.ring.transition_writer(), self.clock, self.listeners, self._tell

        def transition(event: int, pe: int, old: int, new: int, cause: str) -> None:
            keep(event, pe, old, new, cause)
            if listeners:
                kind = _KINDS.get(cause, "transition")
                fields = {"event": event, "from": old, "to": new, "cause": cause}
                tell({"time_ns": clock(), "type": kind, "pe": pe, **fields})

        return transition

    def note(self, name: str, pe: int | None, **details: Any) -> None:
        """Keep something rare with the time of now, and pass it on. The name "reject" counts as a rejection."""
        if name != "unknown":  # the call's own record says so
            self.ring.text(name, pe, details)
        if name == "reject":
            self.rejected += 1
        if self.listeners:
            self._tell({"time_ns": self.clock(), "type": name, "pe": pe, **details})

    def triggered(self, event: int, pe: int | None, *, merged: bool) -> None:
        """Keep a trigger of the host's."""
        self.ring.keep(Type.TRIGGER, pe, event, Outcome.MERGED if merged else Outcome.PENDING, 0)

    def _tell(self, record: dict[str, Any]) -> None:
        for listener in list(self.listeners):
            listener(record)
