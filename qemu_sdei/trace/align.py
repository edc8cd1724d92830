"""Guest counter and host clock on one axis.

QEMU's virtual counter runs at the pace of the host's monotonic clock while the virtual machine runs, and stops
while it is stopped (`stop`, save, migration, a debugger). So the offset between the two, host clock minus counter,
never falls: it is constant while the guest runs and rises by each stop. That alone bounds it, with no guess at how long
the backend takes:

- the backend reads the host clock *after* the vCPU has read the counter: the offset there is *at most* the difference
  of the two, and it was no larger before;
- the backend reads the host clock *before* it lets the vCPU go, so the vCPU's next counter is later than that: the
  offset there is *at least* the difference of that host time and the new counter, and it will be no smaller later.

A record without a host time is bounded by the stamps of those before and behind it, because one thread writes all. The
bounds of a counter value are the least upper bound of all later ones and the greatest lower bound of all earlier
ones. What breaks the rule (another QEMU, a snapshot that is loaded, a counter that was set) begins a new epoch: it is
announced by a record, or it is seen because bounds contradict each other or a vCPU's counter falls.

Three things are assumed and not measured: `ASSUMED_NS` before the first lower bound of an epoch; no stop between the
newest stamped record and unstamped ones after it; a record that has neither clock lies at the one before it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

AHEAD: Final = 4096
"""Records that are read before one is placed, where nobody waits for it."""
ASSUMED_NS: Final = 1_000_000
"""ns. How late the promptest answer of an epoch may be while nothing bounds it from below."""
TYPICAL_NS: Final = 20_000
"""ns. A vCPU has most likely read its counter no longer than this before the latest moment possible."""
ARRIVALS: Final = frozenset({"call", "frame"})
"""Records about the moment at which a vCPU came to EL3, which the counter says better than the host."""
_SECOND: Final = 1_000_000_000
_MOST_STEPS: Final = 4096
_LOOKED_AT: Final = 64
"""Records in which one with a time is looked for, by one without."""


def _is_own(record: Mapping[str, Any]) -> bool:
    """Whether it is written while the backend answers the very vCPU that it is about: not before it, and not behind."""
    if record["type"] == "power":
        return record.get("to") != "on-pending"  # that is for another vCPU to bring about
    return record.get("cause") in ("DISPATCH", "COMPLETE")


class Placed(NamedTuple):
    """A moment on the host's monotonic clock."""

    at_ns: int
    error_ns: int
    """How far `at_ns` may be off, in either direction."""


class GrowingOffset:
    """An offset that never falls along some axis, known by bounds: at most as many numbers as there are steps.

    Of bounds that no other makes needless there are some ln(n) among n samples. A sequence that is made to have more is
    thinned out, which makes bounds wider and none wrong.
    """

    def __init__(self) -> None:
        self._low_at: list[int] = []
        self._lows: list[int] = []
        self._high_at: list[int] = []
        self._highs: list[int] = []

    def at(self, place: int) -> tuple[int | None, int | None]:
        """The least and the greatest that the offset can be at `place`; None: not bounded on that side."""
        before = bisect_right(self._low_at, place)
        after = bisect_left(self._high_at, place)
        low = self._lows[before - 1] if before else None
        return low, self._highs[after] if after < len(self._highs) else None

    def high_before(self, place: int) -> int | None:
        """The upper bound of the last place before this one that has one of its own: what the offset is at most if it
        has not grown since.
        """
        before = bisect_left(self._high_at, place)
        return self._highs[before - 1] if before else None

    def at_least(self, place: int, low: int) -> None:
        """The offset is no less than `low` from `place` on."""
        end = begin = bisect_right(self._low_at, place)
        if begin and self._lows[begin - 1] >= low:
            return
        if begin and self._low_at[begin - 1] == place:
            begin -= 1
        while end < len(self._lows) and self._lows[end] <= low:
            end += 1
        self._low_at[begin:end] = [place]
        self._lows[begin:end] = [low]
        if len(self._lows) > _MOST_STEPS:
            del self._low_at[1::2], self._lows[1::2]

    def at_most(self, place: int, high: int) -> None:
        """The offset is no more than `high` up to `place`."""
        end = begin = bisect_left(self._high_at, place)
        if end < len(self._highs) and self._highs[end] <= high:
            return
        if end < len(self._highs) and self._high_at[end] == place:
            end += 1
        while begin and self._highs[begin - 1] >= high:
            begin -= 1
        self._high_at[begin:end] = [place]
        self._highs[begin:end] = [high]
        if len(self._highs) > _MOST_STEPS:
            del self._high_at[-2::-2], self._highs[-2::-2]

    def steps(self) -> Iterator[tuple[int, int, int]]:
        """Where it has certainly grown: (after this place, before that place, at least by so much)."""
        known = 0
        for place, low in zip(self._low_at, self._lows, strict=True):
            before = bisect_left(self._high_at, place)
            if before > known and low > self._highs[before - 1]:
                yield self._high_at[before - 1], place, low - self._highs[before - 1]
                known = before


class Epoch:
    """A stretch of a guest's life in which its counter was set by nobody."""

    def __init__(self, hz: int) -> None:
        self.hz = hz
        """Of the counter."""
        self.tick_ns = -(-_SECOND // hz)
        self.offset = GrowingOffset()
        self.newest: dict[int, int] = {}
        """The newest counter of each vCPU."""
        self.first: int | None = None
        self.last = 0

    def ns(self, counter: int) -> int:
        """How long the counter takes to get there from 0."""
        return counter * _SECOND // self.hz

    def saw(self, vcpu: int, counter: int) -> None:
        """A vCPU has read `counter`."""
        self.newest[vcpu] = counter
        self.first = counter if self.first is None else min(self.first, counter)
        self.last = max(self.last, counter)


class Stop(NamedTuple):
    """The virtual machine was stopped for at least `ns`, between two values of its counter."""

    after: int
    before: int
    ns: int


class Alignment:
    """Learns from records, in their order, how the guest's counter lies on the host's clock."""

    def __init__(self, counter_hz: int) -> None:
        """`counter_hz`: ticks of the guest's counter in a second, above 0; a record of a boot may say otherwise."""
        self._epochs: list[Epoch] = [Epoch(counter_hz)]
        self._held: dict[int, int] = {}
        """A time at which the backend still had each vCPU in its hands."""
        self._written: int | None = None
        """The newest stamp."""
        self._unstamped: tuple[int, Epoch] | None = None
        """The largest counter since that."""

    def learn(self, record: Mapping[str, Any]) -> Epoch:
        """Take a record in. Returns the epoch that it belongs to."""
        kind = record["type"]
        if kind == "boot" or (kind == "backend" and record.get("what") == "incoming"):
            hz = record.get("counter_hz")
            self._begin_epoch(hz if type(hz) is int and 0 < hz <= _SECOND else None)
        stamp: int | None = record.get("time_ns")
        if stamp is not None:
            if self._unstamped is not None:
                highest, epoch = self._unstamped
                epoch.offset.at_most(highest, stamp - epoch.ns(highest))
                self._unstamped = None
            self._written = stamp if self._written is None else max(self._written, stamp)
        # A frame that was not answered is a forged one, or nobody knows what became of it.
        if kind in ARRIVALS and type(vcpu := record.get("vcpu")) is int and record.get("answered") is not False:
            if type(counter := record.get("counter")) is int:
                self._arrived(vcpu, counter, stamp)
            if self._written is not None:
                self._held[vcpu] = self._written
        elif stamp is not None and _is_own(record) and type(vcpu := record.get("vcpu")) is int:
            self._held[vcpu] = stamp
        return self._epochs[-1]

    @property
    def counter_hz(self) -> int:
        """Ticks of the counter in a second, by the newest record that says it."""
        return self._epochs[-1].hz

    def _begin_epoch(self, hz: int | None = None) -> Epoch:
        newest = self._epochs[-1]
        self._unstamped = None
        if newest.first is not None or hz is not None:
            self._epochs.append(Epoch(hz or newest.hz))
            if len(self._epochs) > _MOST_STEPS:  # of a guest that resets for ever the newest are enough
                del self._epochs[: _MOST_STEPS // 2]
        return self._epochs[-1]

    def _arrived(self, vcpu: int, counter: int, stamp: int | None) -> None:
        """A vCPU came to EL3 at `counter`; later the host's clock showed `stamp`."""
        epoch = self._epochs[-1]
        base = epoch.ns(counter)
        newest = epoch.newest.get(vcpu)
        # The same counter: the same frame once more, seen by the backend that followed.
        since = None if counter == newest else self._held.get(vcpu)
        low = None if since is None else since - base - epoch.tick_ns
        high = None if stamp is None else stamp - base
        least, most = epoch.offset.at(counter)
        if (
            (newest is not None and counter < newest)
            or (high is not None and least is not None and least > high)
            or (low is not None and most is not None and low > most)
        ):
            epoch = self._begin_epoch()
        epoch.saw(vcpu, counter)
        if low is not None:
            epoch.offset.at_least(counter, low)
        if high is not None:
            epoch.offset.at_most(counter, high)
        elif self._unstamped is None or self._unstamped[0] < counter:
            self._unstamped = counter, epoch

    def place(self, record: Mapping[str, Any], epoch: Epoch) -> Placed | None:
        """Where a record that was learned lies; None: it has neither clock, or nothing is known of its counter."""
        stamp: int | None = record.get("time_ns")
        counter = record.get("counter")
        if type(counter) is int and (stamp is None or record["type"] in ARRIVALS):
            placed = self._place(counter, epoch, stamp)
            if placed is not None:
                return placed
        return None if stamp is None else Placed(stamp, 0)

    def at(self, counter: int) -> Placed | None:
        """Where a value of the counter lies that no record has; None: nothing is known of it.

        Where the counter passed the value more than once (another QEMU, a snapshot), it is the last time.
        """
        epochs = [epoch for epoch in reversed(self._epochs) if epoch.first is not None]
        inside = (epoch for epoch in epochs if epoch.first is not None and epoch.first <= counter <= epoch.last)
        nearest = next(inside, epochs[0] if epochs else None)
        return None if nearest is None else self._place(counter, nearest, None)

    def _place(self, counter: int, epoch: Epoch, stamp: int | None) -> Placed | None:
        low, high = epoch.offset.at(counter)
        unmoved = epoch.offset.high_before(counter)
        if unmoved is not None and low is not None and unmoved < low:
            unmoved = None  # there was a stop
        if high is None:
            high = unmoved if unmoved is not None or low is None else low + ASSUMED_NS
        if high is None:
            return None
        base = epoch.ns(counter)
        earliest = base + (high - ASSUMED_NS if low is None else low)
        latest = base + high + epoch.tick_ns
        if stamp is not None:
            latest = min(latest, stamp)
        earliest = min(earliest, latest)
        # A stop about this moment is less likely than none, unless its own stamp shows how late it was seen.
        likely = latest if stamp is not None or unmoved is None else min(latest, base + unmoved + epoch.tick_ns)
        at = likely - min(max(likely - earliest, 0) // 2, TYPICAL_NS)
        return Placed(at, max(latest - at, at - earliest))

    def stops(self) -> list[Stop]:
        """Stops of the virtual machine that are certain, of all epochs, in their order."""
        return [Stop(*step) for epoch in self._epochs for step in epoch.offset.steps()]


class Aligner:
    """Fills in `at_ns` and `at_error_ns` of records, in their order; len() is how many wait for that.

    `at_ns` of a call or a frame is when the vCPU came to EL3, of other records when they were written: it need not
    grow from one record to the next.
    """

    def __init__(self, counter_hz: int) -> None:
        self._alignment = Alignment(counter_hz)
        self._waiting: deque[tuple[dict[str, Any], Epoch]] = deque()
        self._before: int | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, record: dict[str, Any]) -> None:
        """Take in the next record. Those that are still waiting are placed the better for it."""
        self._waiting.append((record, self._alignment.learn(record)))

    def take(self) -> dict[str, Any]:
        """The oldest record that waits, placed."""
        record, epoch = self._waiting.popleft()
        place = self._alignment.place(record, epoch)
        if place is None:
            # It lies behind the one before it, and before the next that has a place.
            later = (self._alignment.place(*other) for other in islice(self._waiting, _LOOKED_AT))
            behind = next((other.at_ns for other in later if other is not None), None)
            at = self._before if self._before is not None else behind or 0
            place = Placed(at, ASSUMED_NS if behind is None or self._before is None else max(behind - at, 0))
        self._before = place.at_ns
        record["at_ns"], record["at_error_ns"] = place
        return record


def aligned(records: Iterable[dict[str, Any]], counter_hz: int, ahead: int = AHEAD) -> Iterator[dict[str, Any]]:
    """`records` placed on the host's clock, as `Aligner` does it. So many are read `ahead` of the one that is given; 0
    for a trace that is followed, where errors are larger, as later records tell most.
    """
    aligner = Aligner(counter_hz)
    for record in records:
        aligner.add(record)
        if len(aligner) > ahead:
            yield aligner.take()
    while len(aligner):
        yield aligner.take()
