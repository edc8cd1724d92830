"""The event log: what happens in a guest. It keeps the newest events and passes each one to whoever listens."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from qemu_sdei.rundir import WARNING

TRACE_LENGTH: Final = 4096
Note = tuple[int, str, int, dict[str, Any]] | tuple[int, str, int, int, int, int]
"""Time in ns, name, PE, and details; for a transition, of which there are many: event, old and new state."""
Listener = Callable[[dict[str, Any]], None]
_KINDS: Final = {"DISPATCH": "deliver", "COMPLETE": "complete"}


def complain(text: str) -> None:
    """Tell the user something: it is in the log, and shown when the guest has ended."""
    with contextlib.suppress(OSError):
        print(f"{WARNING}{text}", file=sys.stderr, flush=True)


class EventLog:
    """Keeps notes of what happens in one guest, and passes them on.

    Attributes:
        clock: gives the time in nanoseconds.
        notes: the newest things worth telling (time in ns, name, PE, details).
        listeners: called with each note as it happens.
        rejected: how many notes say that something was not as it must be.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.notes: deque[Note] = deque(maxlen=TRACE_LENGTH)
        self.rejected = 0
        self.listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Have `listener` called with each thing that happens, in the form of `readable`."""
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
        append, clock, listeners, tell = self.notes.append, self.clock, self.listeners, self._tell

        def transition(event: int, pe: int, old: int, new: int, cause: str) -> None:
            note = (clock(), cause, pe, event, old, new)
            append(note)
            if listeners:
                tell(note)

        return transition

    def note(self, name: str, pe: int, **details: Any) -> None:
        """Keep a note with the time of now, and pass it on. The name "reject" counts as a rejection."""
        note = (self.clock(), name, pe, details)
        self.notes.append(note)
        if name == "reject":
            self.rejected += 1
        if self.listeners:
            self._tell(note)

    def _tell(self, note: Note) -> None:
        record = readable(note)
        for listener in list(self.listeners):
            listener(record)


def readable(note: Note) -> dict[str, Any]:
    """A note as people and programs get it."""
    now, name, pe, *rest = note
    if isinstance(rest[0], dict):
        return {"time_ns": now, "type": name, "pe": pe, **rest[0]}
    event, old, new = rest
    kind = _KINDS.get(name, "transition")
    return {"time_ns": now, "type": kind, "pe": pe, "event": event, "from": old, "to": new, "cause": name}
