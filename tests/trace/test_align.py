"""The guest's counter on the host's clock: what is said of an error holds, whatever stops and delays there were."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.trace.align import ASSUMED_NS, Alignment, GrowingOffset, aligned
from tests.examples import examples
from tests.trace.simulated_clocks import HZ, TICK_NS, Exchange, Machine, Seen, exchanges

HOUR = 3_600_000_000_000


def ran(steps: list[Exchange], counter: int = 1_000_000) -> Machine:
    machine = Machine(HOUR, counter)
    for step in steps:
        machine.do(step)
    return machine


def placed(seen: list[Seen], ahead: int = 4096) -> list[dict[str, Any]]:
    return list(aligned((dict(entry.record) for entry in seen), HZ, ahead))


def measured(seen: list[Seen]) -> range:
    """Counters of which nothing is assumed: from the first of a vCPU that had been let go behind some stamp, to the
    last that a stamp follows.
    """
    held: set[int] = set()
    lows: list[int] = []
    highs: list[int] = []
    waiting: list[int] = []
    stamped = False
    for record in (entry.record for entry in seen):
        if record["vcpu"] in held:
            lows.append(record["counter"])
        waiting.append(record["counter"])
        if record["time_ns"] is not None:
            stamped = True
            highs += waiting
            waiting = []
        if stamped:
            held.add(record["vcpu"])
    return range(min(lows), max(highs) + 1) if lows and highs else range(0)


@given(exchanges(), st.integers(0, 1 << 40))
@settings(max_examples=examples(50, 3000))
def test_no_record_is_further_off_than_is_said(steps: list[Exchange], counter: int) -> None:
    seen = ran(steps, counter).records
    sure = measured(seen)
    for entry, record in zip(seen, placed(seen), strict=True):
        if entry.record["counter"] in sure:
            assert abs(record["at_ns"] - entry.true_ns) <= record["at_error_ns"]


@given(exchanges())
@settings(max_examples=examples(40, 2000))
def test_a_trace_that_is_followed_keeps_its_word_too(steps: list[Exchange]) -> None:
    """A record that has a stamp is placed with no look at later ones: with larger errors, which hold as well."""
    seen = ran(steps).records
    for number, record in enumerate(placed(seen, ahead=0)):
        if record["time_ns"] is not None and record["counter"] in measured(seen[: number + 1]):
            assert abs(record["at_ns"] - seen[number].true_ns) <= record["at_error_ns"]
            assert record["at_ns"] <= record["time_ns"]


def test_prompt_exchanges_are_placed_to_some_microseconds() -> None:
    step = Exchange(vcpu=0, runs_ns=4_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=0)
    records = placed(ran([step] * 50).records)
    assert max(record["at_error_ns"] for record in records[1:]) < 25_000


def test_one_late_answer_does_not_move_the_others() -> None:
    prompt = Exchange(vcpu=0, runs_ns=4_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=0)
    late = Exchange(vcpu=0, runs_ns=4_000, late_ns=30_000_000, holds_ns=9_000, stamped=True, stop_ns=0)
    seen = ran([prompt] * 20 + [late] + [prompt] * 20).records
    for entry, record in list(zip(seen, placed(seen), strict=True))[1:]:
        assert abs(record["at_ns"] - entry.true_ns) <= record["at_error_ns"] < 25_000


def test_a_stop_is_found() -> None:
    """Records behind it are placed as well as those before it; whether the one that is first seen after it came to EL3
    before or after it nobody can tell.
    """
    call = Exchange(vcpu=0, runs_ns=4_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=0)
    quiet = Exchange(vcpu=0, runs_ns=4_000, late_ns=1_000, holds_ns=1_000, stamped=False, stop_ns=0)
    halted = Exchange(vcpu=0, runs_ns=9_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=5_000_000_000)
    seen = ran([call, call, call, call, call, halted, quiet, quiet, call, call]).records
    records = placed(seen)
    for number, (entry, record) in enumerate(zip(seen, records, strict=True)):
        assert abs(record["at_ns"] - entry.true_ns) <= record["at_error_ns"]
        assert number in (0, 5) or record["at_error_ns"] < 30_000
    assert records[5]["at_error_ns"] > 4_999_000_000

    alignment = Alignment(HZ)
    for entry in seen:
        alignment.learn(entry.record)
    (stop,) = alignment.stops()
    assert 4_999_900_000 <= stop.ns <= 5_000_000_000
    assert seen[4].record["counter"] <= stop.after < stop.before <= seen[6].record["counter"]


def test_a_call_without_a_stamp_before_a_stop_is_not_taken_for_one_behind_it() -> None:
    """It may be either, and its error says so; but a stop at that very moment is the less likely."""
    call = Exchange(vcpu=0, runs_ns=4_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=0)
    quiet = Exchange(vcpu=0, runs_ns=4_000, late_ns=6_000, holds_ns=9_000, stamped=False, stop_ns=0)
    halted = Exchange(vcpu=0, runs_ns=90_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=5_000_000_000)
    seen = ran([call] * 10 + [quiet, halted] + [call] * 10).records
    record = placed(seen)[10]
    assert record["at_error_ns"] > 4_999_000_000
    assert abs(record["at_ns"] - seen[10].true_ns) < 30_000


@pytest.mark.parametrize("counter", [5, 1 << 50], ids=["set back", "set forward"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_counter_that_is_set_begins_anew(counter: int, announced: bool) -> None:
    call = Exchange(vcpu=0, runs_ns=4_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=0)
    machine = ran([call] * 10, 1 << 40)
    machine.set_counter(counter)
    if announced:
        machine.note("boot", epoch=2)
    for _ in range(10):
        machine.do(call)
    entries = [entry for entry in machine.records if entry.record["type"] == "call"]
    records = [record for record in placed(machine.records) if record["type"] == "call"]
    for entry, record in zip(entries, records, strict=True):
        assert abs(record["at_ns"] - entry.true_ns) <= record["at_error_ns"]
    assert all(record["at_error_ns"] < 25_000 for record in records[1:10] + records[11:])


def test_a_frame_that_the_next_backend_finds_again_says_nothing_new() -> None:
    """It is recorded twice with one counter: the vCPU was not let go in between."""
    call = Exchange(vcpu=0, runs_ns=4_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=0)
    machine = ran([call] * 5)
    again = dict(machine.records[-1].record)
    machine.now += 400_000_000
    again["time_ns"] = machine.now
    seen = [*machine.records, Seen(again, machine.records[-1].true_ns)]
    records = placed(seen)
    assert abs(records[-1]["at_ns"] - records[-2]["at_ns"]) < 100
    assert all(abs(r["at_ns"] - entry.true_ns) <= r["at_error_ns"] for entry, r in zip(seen, records, strict=True))


def test_a_boot_may_say_how_fast_the_counter_goes() -> None:
    """As of a newer QEMU, whose counter has ticks of a nanosecond."""
    machine = Machine(HOUR, 1 << 20)
    machine.note("boot", epoch=1, counter_hz=1_000_000_000)
    for _ in range(10):
        machine.do(Exchange(vcpu=0, runs_ns=4_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=0))
        machine.records[-1].record["counter"] *= TICK_NS
    alignment = Alignment(HZ)
    for entry in machine.records:
        alignment.learn(entry.record)
    assert alignment.counter_hz == 1_000_000_000
    for entry, record in list(zip(machine.records, placed(machine.records), strict=True))[2:]:
        assert abs(record["at_ns"] - entry.true_ns) <= record["at_error_ns"] < 25_000


def test_what_is_written_when_it_happens_keeps_the_host_clock() -> None:
    power = {"n": 2, "type": "power", "vcpu": 0, "time_ns": HOUR + 5, "counter": 4, "from": "off", "to": "on"}
    (record,) = aligned([power], HZ)
    assert (record["at_ns"], record["at_error_ns"]) == (HOUR + 5, 0)


def test_a_record_without_any_clock_lies_between_its_neighbours() -> None:
    def note(time_ns: int | None) -> dict[str, Any]:
        return {"n": 1, "type": "note", "vcpu": None, "time_ns": time_ns, "counter": None}

    records = list(aligned([note(1_000), note(None), note(5_000)], HZ))
    assert [(r["at_ns"], r["at_error_ns"]) for r in records] == [(1_000, 0), (1_000, 4_000), (5_000, 0)]


def test_what_is_missing_at_the_beginning_lies_where_the_rest_begins() -> None:
    missing = {"n": 1, "type": "dropped", "vcpu": None, "time_ns": None, "counter": None, "count": 7}
    power = {"n": 2, "type": "power", "vcpu": 0, "time_ns": HOUR, "counter": None, "from": "off", "to": "on"}
    assert [record["at_ns"] for record in aligned([missing, power], HZ)] == [HOUR, HOUR]


def test_calls_of_which_few_have_a_stamp_are_placed_as_well() -> None:
    """As they are in a ring: one of 64."""
    steps = [
        Exchange(vcpu=n % 2, runs_ns=4_000, late_ns=6_000, holds_ns=9_000, stamped=n % 64 == 5, stop_ns=0)
        for n in range(200)
    ]
    seen = ran(steps).records
    sure = measured(seen)
    for entry, record in zip(seen, placed(seen), strict=True):
        if entry.record["counter"] in sure:
            assert abs(record["at_ns"] - entry.true_ns) <= record["at_error_ns"] < 40_000


def test_a_call_of_a_handler_is_not_placed_before_its_delivery() -> None:
    """Which has a stamp of its own, later than that of the frame that it came of."""
    machine = ran([Exchange(vcpu=0, runs_ns=90_000, late_ns=6_000, holds_ns=0, stamped=True, stop_ns=0)] * 10)
    kick = machine.records[-1].record
    deliver = {**kick, "type": "transition", "cause": "DISPATCH", "time_ns": kick["time_ns"] + 30_000}
    machine.now += 30_000
    machine.do(Exchange(vcpu=0, runs_ns=30_500, late_ns=6_000, holds_ns=0, stamped=False, stop_ns=0))
    *_, delivered, call = aligned(
        [*(dict(e.record) for e in machine.records[:-1]), deliver, machine.records[-1].record], HZ
    )
    assert delivered["at_ns"] == deliver["time_ns"] <= call["at_ns"] + TICK_NS


def test_a_frame_that_was_not_answered_says_nothing() -> None:
    """A guest can write one."""
    call = Exchange(vcpu=0, runs_ns=4_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=0)
    machine = ran([call] * 10)
    forged = {**machine.records[-1].record, "type": "frame", "counter": 1 << 60, "answered": False}
    records = list(aligned([*(dict(entry.record) for entry in machine.records), forged], HZ))
    assert [r["at_ns"] for r in records[:-1]] == [r["at_ns"] for r in placed(machine.records)]
    assert records[-1]["at_ns"] <= forged["time_ns"]


def test_a_trace_of_counters_alone_has_an_order_and_says_that_it_knows_no_more() -> None:
    """Nothing ties it to the host's clock."""
    burst = [{"n": n, "type": "call", "vcpu": 0, "time_ns": None, "counter": 1000 + n} for n in range(3)]
    assert all(record["at_error_ns"] >= ASSUMED_NS for record in aligned(burst, HZ))


def test_values_that_no_record_has_are_placed_as_well() -> None:
    """Such as those of the guest's own trace."""
    step = Exchange(vcpu=0, runs_ns=400_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=0)
    machine = ran([step] * 20)
    alignment = Alignment(HZ)
    for entry in machine.records:
        alignment.learn(entry.record)
    halfway = machine.records[10].true_ns + 150_000
    found = alignment.at(machine.virtual(halfway) // TICK_NS)
    assert found is not None
    assert abs(found.at_ns - halfway) <= found.error_ns < 450_000
    assert Alignment(HZ).at(5) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50), st.integers(-5, 5)), max_size=80), st.data())
@settings(max_examples=examples(50, 1000))
def test_bounds_are_those_of_all_samples(samples: list[tuple[bool, int, int]], data: st.DataObject) -> None:
    offset = GrowingOffset()
    for least, place, value in samples:
        (offset.at_least if least else offset.at_most)(place, value)
    where = data.draw(st.integers(-1, 51))
    lows = [value for least, place, value in samples if least and place <= where]
    highs = [value for least, place, value in samples if not least and place >= where]
    assert offset.at(where) == (max(lows, default=None), min(highs, default=None))


def test_a_trace_made_to_have_many_steps_costs_no_memory_without_end() -> None:
    offset = GrowingOffset()
    for place in range(20_000):
        offset.at_least(place, 10 * place)
        offset.at_most(place, 10 * place + 5)
    assert len(list(offset.steps())) <= 4096
    low, high = offset.at(10_000)
    assert low is not None
    assert high is not None
    assert low <= 100_000 <= high
    assert offset.at(19_999)[1] == 199_995
