"""What is counted, and how long the stages of events took."""

from __future__ import annotations

from typing import Any

from qemu_sdei.views.latencies import Latencies, picture
from qemu_sdei.views.moments import Moments
from qemu_sdei.views.occurrences import Occurrences
from tests.views import sample
from tests.views.pages import Page


def test_calls_and_events_are_counted() -> None:
    counted, moments, write = Occurrences(), Moments(), sample.Writer()
    signal: dict[str, Any] = {"args": {"event": 0, "target": 1}}
    for record in (
        write.call(0, "SDEI_EVENT_SIGNAL", 0xC400_002F, **signal),
        write.call(0, "SDEI_EVENT_SIGNAL", 0xC400_002F, None, then="handler", **signal),
        write.call(0, "SDEI_EVENT_SIGNAL", 0xC400_002F, -2, named="INVALID_PARAMETERS", **signal),
        write.record("counted", 0, function="SDEI_VERSION", id=0xC400_0020, count=41),
        write.call(0, "SDEI_VERSION", 0xC400_0020, 1 << 48, named=None),
        write.record("trigger", 1, event=0, by="host", outcome="merged"),
        write.transition(1, 0, 3, 7, "DISPATCH"),
        write.transition(1, 0, 7, 3, "COMPLETE"),
        write.record("undelivered", 1, event=0, reason="masked", why="PE 1 is masked"),
    ):
        counted.add(moments.moment(record))
    assert counted.functions["SDEI_EVENT_SIGNAL"] == {"SUCCESS": 1, "→ handler": 1, "INVALID_PARAMETERS": 1}
    assert counted.functions["SDEI_VERSION"] == {"value": 42}
    event = counted.events[0]
    assert event.triggers == {"signal": 2, "host": 1, "merged": 1}
    assert (event.delivered, event.completed, event.waited) == (1, 1, {"masked": 1})


def test_a_call_that_needs_several_exchanges_is_counted_once() -> None:
    counted, moments, write = Occurrences(), Moments(), sample.Writer()
    on: dict[str, Any] = {"function": "CPU_ON", "pstate": 5, "el": 1, "call": 1}
    for record in (
        write.call(0, "CPU_ON", 0xC400_0003, None, then="operations", args={"target": 1}),
        write.record("frame", 0, kind="operations", result=None, then="operations", **on),
        write.record("frame", 0, kind="operations", result=0, result_name="SUCCESS", then="returns", **on),
    ):
        counted.add(moments.moment(record))
    assert counted.functions["CPU_ON"] == {"SUCCESS": 1}


def test_names_without_end_are_counted_together() -> None:
    counted, moments, write = Occurrences(), Moments(), sample.Writer()
    for number in range(3000):
        counted.add(moments.moment(write.call(0, f"F{number}", number)))
        counted.add(moments.moment(write.record(f"t{number}", 0, event=number)))
    assert len(counted.functions) <= 1001
    assert len(counted.types) <= 1001
    assert len(counted.events) <= 1001
    assert sum(results.total() for results in counted.functions.values()) == 3000


def test_latencies_of_all_events_are_those_of_each_together() -> None:
    latencies, moments = Latencies(sample.meta()), Moments()
    records = list(sample.trace(400))
    for record in records:
        latencies.add(moments.moment(record))
    latencies.finish()
    whole = latencies.all()
    completed = sum(record.get("cause") == "COMPLETE" for record in records)
    assert whole.outcomes["completed"] == completed
    assert whole.stages["handler"].count == completed
    assert set(latencies.by_event) == {0, 0x103}
    assert sum(one.stages["handler"].count for one in latencies.by_event.values()) == completed


def test_a_picture_has_all_that_was_measured() -> None:
    latencies, moments = Latencies(sample.meta()), Moments()
    for record in sample.trace(400):
        latencies.add(moments.moment(record))
    histogram = latencies.all().stages["handler"]
    drawn = Page(picture("handler", histogram))
    bars = [a for t, a in drawn.elements if t == "rect"]
    assert len(bars) == len(histogram.rows(40))
    assert "p50" in drawn.text
    assert "p99" in drawn.text
