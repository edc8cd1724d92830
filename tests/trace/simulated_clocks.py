"""A guest whose counter stands still while it is stopped, and a backend that is late: what `align.py` has to undo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

HZ = 62_500_000
TICK_NS = 16


@dataclass
class Seen:
    """A record, and when its vCPU came to EL3 by the host's clock, which nobody knows."""

    record: dict[str, Any]
    true_ns: int


@dataclass(frozen=True)
class Exchange:
    """One exchange of a vCPU: how long the guest runs before it, how long the backend takes to see it and to let go."""

    vcpu: int
    runs_ns: int
    late_ns: int
    holds_ns: int
    stamped: bool
    stop_ns: int
    """How long the virtual machine is stopped while this vCPU runs; mostly 0."""


@st.composite
def exchanges(draw: st.DrawFn) -> list[Exchange]:
    """Exchanges of up to three vCPUs. Delays are from nothing to some ms; stops from a µs to a minute."""
    short = st.integers(TICK_NS, 300_000)
    delay = st.one_of(st.integers(0, 200_000), st.integers(0, 8_000_000))
    stop = st.one_of(st.just(0), st.just(0), st.just(0), st.integers(1_000, 60_000_000_000))
    stamped = st.booleans() if draw(st.booleans()) else st.just(True)
    return [
        Exchange(draw(st.integers(0, 2)), draw(short), draw(delay), draw(delay), draw(stamped), draw(stop))
        for _ in range(draw(st.integers(1, 60)))
    ]


class Machine:
    """Carries exchanges out, in the order in which the backend takes them; each vCPU runs at its own pace meanwhile."""

    def __init__(self, start_ns: int, counter_at_start: int) -> None:
        self.now = start_ns
        self.records: list[Seen] = []
        self._start = start_ns
        self._virtual_at_start = counter_at_start * TICK_NS
        self._stops: list[tuple[int, int]] = []
        self._let_go: dict[int, int] = {}

    def virtual(self, host_ns: int) -> int:
        """The virtual clock, in ns."""
        stood = sum(max(min(host_ns, begin + length) - begin, 0) for begin, length in self._stops)
        return host_ns - self._start - stood + self._virtual_at_start

    def host(self, virtual_ns: int) -> int:
        """The other way."""
        host = virtual_ns - self._virtual_at_start + self._start
        for begin, length in self._stops:
            if host >= begin:
                host += length
        return host

    def stop(self, length: int) -> None:
        """Stop the virtual machine a moment from now."""
        begin = max([self.now + 5_000, *(begin + length for begin, length in self._stops)])
        # Between two ticks: the counter has no value both before and behind it.
        self._stops.append((begin + -self.virtual(begin) % TICK_NS, length))

    def set_counter(self, counter: int) -> None:
        """Another QEMU, another snapshot: the vCPUs go on at once, with that counter."""
        self.now = max([self.now, *(begin + length for begin, length in self._stops)])
        self._start, self._virtual_at_start, self._stops = self.now, counter * TICK_NS, []
        self._let_go = {}

    def note(self, kind: str, **fields: Any) -> None:
        """A record without vCPU."""
        self._keep({"type": kind, "vcpu": None, "time_ns": self.now, "counter": None, **fields}, self.now)

    def _keep(self, record: dict[str, Any], true_ns: int) -> None:
        self.records.append(Seen({"n": len(self.records) + 1, "pc": None, **record}, true_ns))

    def do(self, exchange: Exchange) -> None:
        """A vCPU comes to EL3, is seen and let go."""
        if exchange.stop_ns:
            self.stop(exchange.stop_ns)
        let_go = self._let_go.get(exchange.vcpu, self._start)
        came_virtual = self.virtual(let_go) + exchange.runs_ns
        came = self.host(came_virtual)
        seen = max(came, self.now) + exchange.late_ns
        stamp = seen if exchange.stamped else None
        record = {"type": "call", "vcpu": exchange.vcpu, "time_ns": stamp, "counter": came_virtual // TICK_NS}
        self._keep(record, came)
        self.now = self._let_go[exchange.vcpu] = seen + exchange.holds_ns
