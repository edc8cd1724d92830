"""Who looks on at a guest's console, and whose keys reach it: the terminal that runs it, and those of `console`.

Any number may look on; one types at a time. All methods may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

Sink = Callable[[bytes], None]
"""Is given the console's raw bytes, in the guest's event loop: it must not block."""


class Onlookers:
    """The sinks of one guest's console: itself a sink, for the supervisor."""

    def __init__(self) -> None:
        self._first: Sink | None = None
        self._more: list[Sink] = []
        self._lock = threading.Lock()

    def __call__(self, data: bytes) -> None:
        """Give `data` to everybody."""
        with self._lock:
            sinks = [sink for sink in (self._first, *self._more) if sink is not None]
        for sink in sinks:
            sink(data)

    def first(self, sink: Sink | None) -> None:
        """Who looks on in the process that runs the guest; None: nobody."""
        with self._lock:
            self._first = sink

    def add(self, sink: Sink) -> None:
        """One more."""
        with self._lock:
            self._more.append(sink)

    def remove(self, sink: Sink) -> None:
        """One less."""
        with self._lock:
            self._more.remove(sink)


@dataclass(frozen=True)
class Typist:
    """Somebody whose keys reach the console."""

    token: str
    """By which it is known."""
    who: str
    """In words, for others: `the terminal that runs it`."""


class Seat:
    """Who types at one guest's console: one at a time, and the last who took it."""

    def __init__(self) -> None:
        self._typist: Typist | None = None
        self._lock = threading.Lock()

    @property
    def typist(self) -> Typist | None:
        """Who types now; None: nobody."""
        return self._typist

    def take(self, typist: Typist, *, force: bool) -> Typist | None:
        """Type from now on. Returns who types and stays, where the seat is taken and `force` is not wanted."""
        with self._lock:
            if self._typist is not None and self._typist.token != typist.token and not force:
                return self._typist
            self._typist = typist
            return None

    def leave(self, token: str) -> None:
        """Type no more."""
        with self._lock:
            if self.has(token):
                self._typist = None

    def has(self, token: str) -> bool:
        """Whether it is that one who types."""
        return self._typist is not None and self._typist.token == token
