"""Errors that a guest is told of by an SDEI event, until a handler of it begins.

Before that the event can be withdrawn: its vCPU goes off, as in CPU hotplug, or a driver unregisters it. The error
would lie there unread, and keep its source from the next one. So the guest is told again: at once if another vCPU
listens, else when one does. What lies there when a backend takes the guest over is told in the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final, Protocol

from qemu_sdei.backend.loop.event_log import EventLog
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.boot.area import ErrorSource
from qemu_sdei.errors import SdeiError

_WITHDRAWN: Final = frozenset(("UNREGISTER", "PE_RESET"))
"""Causes by which an event that was pending is so no more (DEN0054 5.1.8, 6.5.2)."""
_HEARD: Final = "ENABLE"
_RESET: Final = "RESET"


class Sources(Protocol):
    """What is asked of the guest's error sources: see `ErrorSources`."""

    placed: tuple[ErrorSource, ...]

    def why_closed(self) -> str | None:
        """Why the sources' memory may not be looked at; None: it may."""

    def unread(self, placed: ErrorSource) -> bool:
        """Whether an error lies there that the guest has not read."""

    def why_unheard(self, placed: ErrorSource, pe: int | None, *, force: bool = False) -> str | None:
        """Why nobody would notice an error now; None: somebody would."""

    def target(self, placed: ErrorSource, pe: int | None) -> int | None:
        """The vCPU whose event is to be triggered."""


class UntoldErrors:
    """Those of one guest."""

    def __init__(
        self, sources: Sources, guest: ServedGuest, log: EventLog, trigger: Callable[[int, int | None], Any]
    ) -> None:
        """`trigger`: makes an event pending, as `Server.trigger`."""
        self._sources = sources
        self._guest = guest
        self._log = log
        self._trigger = trigger
        self._events: set[int] = set()
        """Whose handler has not begun since an error was told by it."""
        self._due = True
        """Something has changed: look at the sources again."""

    def tell(self, event: int, pe: int | None) -> None:
        """Trigger the event of a source in which an error lies now. Raises what `trigger` raises."""
        self._watch(event)
        try:
            self._trigger(event, pe)
        except BaseException:
            self._forget(event)
            raise

    def tick(self) -> None:
        """Tell again what was withdrawn, if something has changed. Outside of a call: a trigger is an input."""
        if self._due and self._sources.why_closed() is None:
            self.tell_again()

    def look_again(self) -> None:
        """The guest's state is another one by now."""
        self._due = True

    def tell_again(self) -> None:
        """Tell of each error that lies there unread, unless its event is pending or its handler runs. The guest may
        have been told before: a handler that finds nothing new says so at most.
        """
        self._due = False
        sources = [each for each in self._sources.placed if each.source.event is not None]
        unread = [each for each in sources if self._sources.unread(each)]
        if not unread:
            return
        busy = {
            event["event"]
            for event in self._guest.firmware.dispatcher.status()["events"]
            if any(instance["pending"] or instance["running"] for instance in event["instances"])
        }
        for placed in unread:
            event = placed.source.event
            assert event is not None
            self._watch(event)
            if event not in busy and self._sources.why_unheard(placed, None, force=True) is None:
                with contextlib.suppress(SdeiError):
                    self._trigger(event, self._sources.target(placed, None))

    def _watch(self, event: int) -> None:
        """Be told of what happens only while there is something to watch: it costs on the hot path."""
        self._events.add(event)
        self._log.listen(self._happened)

    def _forget(self, event: int) -> None:
        self._events.discard(event)
        if not self._events:
            self._log.unlisten(self._happened)

    def _happened(self, record: dict[str, Any]) -> None:
        event = record.get("event")
        if event not in self._events:
            return
        cause = record.get("cause")
        if record["type"] == "deliver" or cause == _RESET:
            self._forget(event)
        elif cause in _WITHDRAWN or cause == _HEARD:
            self._due = True
