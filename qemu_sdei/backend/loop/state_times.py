"""Since when events and vCPUs are as they are: what the core, which has no clock, cannot say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable


class StateTimes:
    """When things last changed, as this backend has seen it; what happened before it is not known.

    Attributes:
        events: event -> time of the newest transition on each PE, 0: none was seen. The last place is for transitions
            of no PE (-1). A list is made when it is first asked for: the hot path only stores.
        now: what the clock said when the loop last looked at it: less than a millisecond ago, where a vCPU is served.
        power: the same of each vCPU's power state.
        started_ns: when this backend began.
        reset_ns: when the machine last came out of reset; None: before this backend.
    """

    def __init__(self, clock: Callable[[], int], nr_cpus: int) -> None:
        """`clock` gives nanoseconds."""
        self.clock = clock
        self.events: defaultdict[int, list[int]] = defaultdict(lambda: [0] * (nr_cpus + 1))
        self.power = [0] * nr_cpus
        self.started_ns = self.now = clock()
        self.reset_ns: int | None = None

    def note(self, name: str, pe: int) -> None:
        """Something rare has happened, named as in the trace."""
        if name == "power":
            self.power[pe] = self.clock()
        elif name == "reset":
            self.reset_ns = self.clock()
            self.power = [0] * len(self.power)

    def forget(self) -> None:
        """The states are others now, by no transition: they were replaced."""
        for times in self.events.values():
            times[:] = [0] * len(times)

    def event(self, number: int, pe: int | None) -> int | None:
        """Since when an event's instance is in its state: on `pe`, or of a shared event (None). None: not known."""
        times = self.events.get(number)
        if times is None:
            return None
        return (max(times) if pe is None else times[pe]) or None

    def vcpu(self, pe: int) -> int | None:
        """Since when a vCPU is on or off. None: not known."""
        return self.power[pe] or self.reset_ns
