"""The descriptors that the backend's loop looks at beside the frames, and standing still: serving nothing else."""

from __future__ import annotations

import select
from collections.abc import Callable

from qemu_sdei.backend.loop.event_log import Telling

Callback = Callable[[int], None]


class Descriptors(Telling):
    """Calls back when a descriptor is ready.

    Attributes:
        held: no frame is answered: the guest stands still, because it is to be written down or has not come yet.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__(clock)
        self.held = False
        self._stopping = False
        self._poll = select.poll()
        self._handlers: dict[int, Callback] = {}
        self._holding = False

    def watch(self, fd: int, callback: Callback, events: int = select.POLLIN) -> None:
        """Call `callback(revents)` when `fd` is ready."""
        self._handlers[fd] = callback
        self._poll.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def stop(self) -> None:
        """End `run` at the next turn."""
        self._stopping = True

    def _sockets(self, timeout_ms: int | None) -> bool:
        ready = self._poll.poll(timeout_ms)
        self._call_back(ready)
        if self.held:
            self._hold_still()
        return bool(ready)

    def _call_back(self, ready: list[tuple[int, int]]) -> None:
        for fd, events in ready:
            callback = self._handlers.get(fd)
            if callback is not None:
                callback(events)

    def _hold_still(self) -> None:
        """Serve descriptors only, until `held` is taken back."""
        if self._holding:
            return
        self._holding = True
        while self.held and not self._stopping:
            self._call_back(self._poll.poll())
        self._holding = False
