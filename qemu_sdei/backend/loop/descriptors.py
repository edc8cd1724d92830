"""The descriptors that the backend's loop looks at beside the frames, and the loop's pause: serving nothing else."""

from __future__ import annotations

import select
from collections.abc import Callable

Callback = Callable[[int], None]


class Descriptors:
    """Calls back when a descriptor is ready.

    Attributes:
        paused: the loop answers no frame, because the guest is about to be written down or has not come yet.
        first: called when one is ready, before it is served: who waits for an answer waits for nothing else.
        stopping: the loop is to end at its next turn.
    """

    def __init__(self) -> None:
        self.paused = False
        self.stopping = False
        self.first: Callable[[], None] = lambda: None
        self._poll = select.poll()
        self._handlers: dict[int, Callback] = {}
        self._waiting = False
        """`wait_while_paused` is on the stack already: a callback has come back to it."""

    def watch(self, fd: int, callback: Callback, events: int = select.POLLIN) -> None:
        """Call `callback(revents)` when `fd` is ready."""
        self._handlers[fd] = callback
        self._poll.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def stop(self) -> None:
        """End the loop at its next turn."""
        self.stopping = True

    def look(self, timeout_ms: int | None) -> bool:
        """Call back for what is ready within `timeout_ms` (None: without limit). Returns whether anything was."""
        ready = self._poll.poll(timeout_ms)
        if ready and not self.paused:
            self.first()
        for fd, events in ready:
            callback = self._handlers.get(fd)
            if callback is not None:
                callback(events)
        return bool(ready)

    def serve(self, timeout_ms: int) -> bool:
        """As `look`; if the loop is paused then, return only when it is no longer."""
        found = self.look(timeout_ms)
        if self.paused:
            self.wait_while_paused()
        return found

    def wait_while_paused(self) -> None:
        """Serve descriptors only, until `paused` is taken back or somebody calls `stop`."""
        if self._waiting:
            return
        self._waiting = True
        while self.paused and not self.stopping:
            self.look(None)
        self._waiting = False
