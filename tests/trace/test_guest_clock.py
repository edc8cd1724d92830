"""The guest's counter at a time of its ftrace: the true value is among those that are said to be possible."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.trace.ftrace_text import Line
from qemu_sdei.trace.guest_clock import AFTER, BEFORE, Calls, GuestClock
from tests.examples import examples

HZ = 62_500_000
TICK = 16
US = 1_000


class Kernel:
    """Its clock is the counter's, from when it began; ftrace prints it to the µs, rounded, or cut as trace-cmd does."""

    def __init__(self, began_ns: int, *, cut: bool = False) -> None:
        self.began = began_ns
        self.cut = cut
        self.clock = GuestClock(HZ, Calls())

    def printed(self, ns: int) -> int:
        return (ns // TICK * TICK - self.began + (0 if self.cut else 500)) // US * US

    def line(self, event: str, ns: int, text: str = "") -> None:
        self.clock.learn(Line(1, b"sh", 1, 0, b"", self.printed(ns), US, event.encode(), text.encode()))

    def read(self, ns: int, before: int, behind: int) -> None:
        self.line(BEFORE, ns - before, "(arch_counter_read+0x0/0x30)")
        self.line(AFTER, ns + behind, f"(ktime_get+0x1/0x2 <- arch_counter_read) counter={ns // TICK:#x}")

    def width_ns(self, ns: int) -> int:
        """How many ns of the counter are possible when it is at `ns`; the true value must be among them."""
        first, last = self.clock.counter(self.printed(ns))
        assert first <= ns // TICK <= last
        return (last - first) * TICK


@given(st.integers(0, 10**9), st.lists(st.tuples(st.integers(0, 4_000), st.integers(0, 4_000)), min_size=1), st.data())
@settings(max_examples=examples(60, 2000))
def test_the_true_value_is_among_the_possible(began: int, delays: list[tuple[int, int]], data: st.DataObject) -> None:
    kernel = Kernel(began, cut=data.draw(st.booleans()))
    now = began + 1_000_000
    for before, behind in delays:
        now += data.draw(st.integers(10_000, 1_000_000))
        kernel.read(now, before, behind)
    at = data.draw(st.integers(began + 1_000_000, now + 1_000_000))
    # A pair bounds it by the time between the probes, and printing moves two times apart by a µs.
    assert kernel.width_ns(at) <= min(sum(delay) for delay in delays) + 3 * US + 3 * TICK


def test_many_pairs_say_more_than_the_best_of_them() -> None:
    kernel, chance = Kernel(5_000_000), random.Random(4)
    kernel.read(50_000_000, 1_000, 9_000)
    one = kernel.width_ns(51_000_000)
    kernel.read(60_000_000, 9_000, 1_000)
    assert kernel.width_ns(51_000_000) < one
    for n in range(200):
        kernel.read(70_000_000 + n * 123_457, chance.randrange(20_000), chance.randrange(20_000))
    assert kernel.width_ns(51_000_000) < 3 * US


def test_noise_between_pairs_is_no_pair() -> None:
    kernel = Kernel(0)
    for text in ("", "counter=", "counter=zz", "counter=99999999999999999999999", "counter=0x10 counter=-1"):
        kernel.line(AFTER, 5_000_000, text)
        kernel.line(BEFORE, 5_000_000)
        kernel.line(AFTER, 5_000_000, text)
    kernel.line("tracing_mark_write", 6_000_000, "qemu-sdei after event=0x7d5e0000")
    assert not kernel.clock.tied
