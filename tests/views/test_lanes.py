"""Spans of a trace: handlers inside each other, what was pending, power and masks."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.views.lanes import Lanes
from qemu_sdei.views.moments import Moments, SharedEvents
from tests.examples import examples
from tests.views.sample import Writer, delivery, trace


def followed(records: Iterable[dict[str, Any]], **options: Any) -> Lanes:
    lanes, moments = Lanes(**options), Moments()
    for record in records:
        lanes.add(moments.moment(record))
    return lanes


def lane(lanes: Lanes, vcpu: int | None) -> dict[str, Any]:
    return next(lane for lane in lanes.document(-(1 << 60)) if lane["vcpu"] == vcpu)


def test_a_critical_handler_is_inside_the_one_that_it_interrupts() -> None:
    found = lane(followed(delivery(Writer(), 2, random.Random(1), nested=True)), 2)
    outer, inner = found["handlers"]
    assert (outer[2], outer[3], inner[2], inner[3]) == (0, 0, 0x103, 1)
    assert outer[0] < inner[0] < inner[1] < outer[1]
    assert [outer[6], inner[6]] == ["complete", "complete"]
    # Each was pending until its handler was entered.
    assert [[start, end, event] for start, end, event in found["pending"]] == [
        [outer[4], outer[0], 0],
        [inner[4], inner[0], 0x103],
    ]


def test_a_handler_that_has_not_ended_is_open() -> None:
    found = lane(followed(list(delivery(Writer(), 0, random.Random(1)))[:-2]), 0)
    (handler,) = found["handlers"]
    assert handler[1] is None


def test_a_handler_that_began_before_the_trace_has_no_begin() -> None:
    found = lane(followed(list(delivery(Writer(), 0, random.Random(1)))[-1:]), 0)
    (handler,) = found["handlers"]
    assert handler[0] is None
    assert handler[1] is not None


def test_a_reset_of_the_machine_ends_what_runs_and_what_waits() -> None:
    write = Writer()
    records = list(delivery(write, 0, random.Random(1)))[:-2]
    records.append(write.record("trigger", 1, event=0, by="host", outcome="pending"))
    records.append(write.record("boot", None, epoch=2))
    lanes = followed(records)
    assert lane(lanes, 0)["handlers"][0][6] == "reset"
    assert lane(lanes, 1)["pending"][0][1] is not None


def test_a_handler_whose_vcpu_goes_off() -> None:
    write = Writer()
    records = list(delivery(write, 0, random.Random(1)))[:-2]
    records.append(write.transition(0, 0, 7, 0, "PE_RESET"))
    assert lane(followed(records), 0)["handlers"][0][6] == "pe_reset"


def test_a_disabled_handler_runs_on() -> None:
    write = Writer()
    records = [write.transition(0, 0, 3, 7, "DISPATCH"), write.transition(0, 0, 7, 5, "DISABLE")]
    assert lane(followed(records), 0)["handlers"][0][1] is None


def test_a_shared_event_waits_for_any_vcpu() -> None:
    write = Writer()
    records = [
        write.record("trigger", 1, event=0x200, by="host", outcome="pending"),
        write.transition(3, 0x200, 3, 7, "DISPATCH"),
    ]
    lanes = followed(records, shared=frozenset((0x200,)))
    assert lane(lanes, None)["pending"] == [[0, 20_000, 0x200]]
    assert lane(lanes, 3)["handlers"][0][4] == 0


def test_a_bound_interrupt_s_event_is_shared_by_its_number() -> None:
    write, bound = Writer(), 0x40FF_0100
    records = [
        write.record("trigger", 0, event=bound, by="interrupt", outcome="pending"),
        write.record("undelivered", None, event=bound, reason="off", why="PE 1 is off"),
        write.transition(2, bound, 3, 0, "UNREGISTER"),
    ]
    lanes = followed(records, shared=SharedEvents(()))
    assert lane(lanes, None)["pending"] == [[0, 40_000, bound]]
    assert 0 not in [lane["vcpu"] for lane in lanes.document(0) if lane["pending"]]


def test_a_signal_is_pending_where_it_is_sent_to() -> None:
    write = Writer()
    records = [write.call(0, "SDEI_EVENT_SIGNAL", 0xC400_002F, args={"event": 0, "target": 0x101})]
    assert lane(followed(records), 17)["pending"] == [[0, None, 0]]


def test_an_event_that_is_unregistered_waits_no_more() -> None:
    write = Writer()
    records = [
        write.record("trigger", 0, event=0, by="host", outcome="pending"),
        write.transition(0, 0, 1, 0, "UNREGISTER"),
    ]
    assert lane(followed(records), 0)["pending"] == [[0, 20_000, 0]]


def test_power_and_masks() -> None:
    write = Writer()
    records = [
        write.power(1, "off", "on"),
        write.call(1, "SDEI_PE_UNMASK", 0xC400_002C),
        write.call(1, "SDEI_PE_MASK", 0xC400_002B, 1, named=None),
        write.power(1, "on", "off"),
    ]
    assert lane(followed(records), 1)["states"] == [
        [None, 0, "off"],
        [0, 20_000, "masked"],
        [40_000, 60_000, "masked"],
        [60_000, None, "off"],
    ]


def test_a_vcpu_that_is_started_was_off() -> None:
    write = Writer()
    started = write.record("power", 1, **{"from": None, "to": "on-pending"})  # type: ignore[arg-type]
    assert lane(followed([started, write.power(1, "on-pending", "on")]), 1)["states"] == [
        [None, 0, "off"],
        [0, 20_000, "on-pending"],
        [20_000, None, "masked"],
    ]


@settings(max_examples=examples(30), deadline=None)
@given(st.integers(0, 1 << 30), st.integers(20, 400))
def test_each_delivery_is_one_span_and_none_ends_before_it_begins(seed: int, length: int) -> None:
    records = list(trace(length, seed=seed))
    lanes = followed(records)
    handlers = [span for lane in lanes.document(-(1 << 60)) for span in lane["handlers"]]
    assert len(handlers) == sum(record.get("cause") == "DISPATCH" for record in records)
    assert sum(span[1] is not None for span in handlers) == sum(r.get("cause") == "COMPLETE" for r in records)
    assert all(span[1] is None or span[0] <= span[1] for span in handlers)
    assert all(span[4] is None or span[4] <= span[0] for span in handlers)
