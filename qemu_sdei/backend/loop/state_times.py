"""Since when events and vCPUs are as they are: what the core, which has no clock, cannot say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final

Times = defaultdict[int, list[int]]
"""Event -> a time for each PE, and one for what has no PE (-1); 0: never. A list is made when it is first asked for,
and stays the same object.
"""
_ENTERED: Final = "DISPATCH"
_ENDED: Final = "COMPLETE"


class StateTimes:
    """When things last changed, as this backend has seen it; what happened before it is not known.

    Attributes:
        entered: when each event's handler was last entered.
        changed: when each event last changed otherwise: registered, enabled, ... That a handler ends is no change, so
            that an event which is handled all the time is enabled for as long as it is.
        now: what the clock said when the loop last looked at it: less than a millisecond ago, where a vCPU is served.
        power: when each vCPU's power state last changed; 0: never.
        started_ns: when this backend began.
        reset_ns: when the machine last came out of reset; None: before this backend.
    """

    def __init__(self, clock: Callable[[], int], nr_cpus: int) -> None:
        """`clock` gives nanoseconds."""
        self.clock = clock

        def never() -> list[int]:
            return [0] * (nr_cpus + 1)

        self.entered = Times(never)
        self.changed = Times(never)
        self.power = [0] * nr_cpus
        self.started_ns = self.now = clock()
        self.reset_ns: int | None = None

    def times_of(self, cause: str) -> Times | None:
        """Where the time of a transition by this cause (name of an `Action`) is kept: the hot path only stores. None:
        nowhere.
        """
        return {_ENTERED: self.entered, _ENDED: None}.get(cause, self.changed)

    def note(self, name: str, pe: int) -> None:
        """Something rare has happened, named as in the trace."""
        if name == "power":
            self.power[pe] = self.clock()
        elif name == "reset":
            self.reset_ns = self.clock()
            self.power = [0] * len(self.power)

    def forget(self) -> None:
        """The states are others now, by no transition: they were replaced."""
        for times in (*self.entered.values(), *self.changed.values()):
            times[:] = [0] * len(times)  # the lists stay the same objects, see `EventLog.transition_hook`

    def event(self, number: int, pe: int | None, *, running: bool) -> int | None:
        """Since when an event's instance is in its state: on `pe`, or of a shared event (None). `running`: its handler
        runs. None: not known.
        """
        times = (self.entered if running else self.changed).get(number)
        if times is None:
            return None
        return (max(times) if pe is None else times[pe]) or None

    def vcpu(self, pe: int) -> int | None:
        """Since when a vCPU is on or off. None: not known."""
        return self.power[pe] or self.reset_ns
