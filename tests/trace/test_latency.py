"""Latencies: each completed event is found once, with the moments that the clocks know, and no more is claimed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.trace.latency import COLUMNS, STAGES, EventLife, LifeBook, stages, summarise, table
from tests.trace.written import META, TICK, Written


def lives_of(trace: Written) -> list[EventLife]:
    return stages(trace.records, META)


def test_an_injection_by_its_stages() -> None:
    trace = Written()
    trigger = trace.trigger(0, 1)
    trace.wait(50_000)
    kick = trace.kick(1, late=2_000)
    deliver = trace.deliver(0, 1)
    trace.wait(20_000)
    complete = trace.complete(0, 1)
    call = trace.records[-2]
    [life] = lives_of(trace)
    assert (life.event, life.vcpu, life.by, life.outcome) == (0, 1, "host", "completed")
    assert life.completed_by == "SDEI_EVENT_COMPLETE"
    found = {
        name: stage
        for name in ("to_el3", "decision", "handler", "in_guest", "entry", "complete")
        if (stage := life.stage(name))
    }
    assert found["to_el3"].ns == kick["at_ns"] - trigger["time_ns"]
    assert (found["to_el3"].clock, found["to_el3"].error_ns) == ("both", TICK)
    assert (found["entry"].ns, found["entry"].error_ns, found["entry"].clock) == (
        deliver["time_ns"] - trigger["time_ns"],
        0,
        "host",
    )
    assert found["in_guest"].ns == (call["counter"] - kick["counter"]) * TICK
    assert (found["in_guest"].error_ns, found["in_guest"].clock) == (TICK, "guest")
    assert found["handler"].ns == call["at_ns"] - deliver["time_ns"]
    assert sum(found[name].ns for name in ("to_el3", "decision", "handler")) == found["complete"].ns
    assert complete["cause"] == "COMPLETE"


@pytest.mark.parametrize("end", [False, True])
def test_what_is_known_of_one_moment_tells_of_the_other(end: bool) -> None:
    """The counter says exactly how long the vCPU was in the handler; its place on the host's clock may be vague."""
    trace = Written()
    trace.trigger(0)
    kick = trace.kick(0, late=500)
    trace.deliver(0)
    trace.wait(20_000)
    trace.complete(0)
    call = trace.records[-2]
    vague = call if end else kick
    truth = vague["at_ns"]
    vague |= {"at_ns": truth - 300_000, "at_error_ns": 400_000}
    [life] = lives_of(trace)
    assert life.came is not None
    assert life.completed is not None
    moment = life.completed if end else life.came
    assert abs(moment.host_ns - truth) <= moment.error_ns <= 3 * TICK
    handler = life.stage("handler")
    assert handler is not None
    assert handler.ns >= 20_000


def test_a_signal_of_the_guest_itself_needs_no_clock_but_the_guests() -> None:
    trace = Written()
    trace.call("SDEI_EVENT_SIGNAL", 0, 0, result=None)
    trace.deliver(0)
    trace.wait(5000)
    trace.complete(0)
    [life] = lives_of(trace)
    assert life.by == "guest"
    complete = life.stage("complete")
    assert complete is not None
    assert complete.clock == "guest"
    assert complete.ns == (trace.records[-2]["counter"] - trace.records[0]["counter"]) * TICK


def test_when_a_call_ended_in_a_handler_nobody_wrote_down() -> None:
    """A call is stamped now and then, when it is seen; the transition in it has the same stamp."""
    trace = Written()
    for stamped in (False, True):
        call = trace.call("SDEI_EVENT_SIGNAL", 0, 0, result=None)
        deliver = trace.deliver(0)
        call["time_ns"] = deliver["time_ns"] = trace.now if stamped else None
        trace.complete(0)
    for life in lives_of(trace):
        assert life.outcome == "completed"
        assert [name for name in STAGES if life.stage(name) is None] == ["decision", "handler", "entry"]


def test_a_signal_to_another_cpu_is_found_by_its_affinity() -> None:
    trace = Written()
    trace.call("SDEI_EVENT_SIGNAL", 0, 0x102)
    trace.call("SDEI_EVENT_SIGNAL", 0, 2)
    trace.kick(2)
    trace.deliver(0, 2)
    trace.complete(0, 2)
    waiting, done = lives_of(trace)
    assert (waiting.vcpu, waiting.outcome) == (18, "pending")
    assert (done.vcpu, done.outcome, done.by) == (2, "completed", "guest")


def test_a_signal_that_was_refused_triggered_nothing() -> None:
    trace = Written()
    trace.call("SDEI_EVENT_SIGNAL", 0, 0, result=-2)
    trace.trigger(0x100, outcome="refused")
    assert lives_of(trace) == []


def test_merged_triggers_are_one_delivery_measured_from_the_first() -> None:
    trace = Written()
    first = trace.trigger(0)
    trace.wait(700_000)
    trace.trigger(0, outcome="merged")
    trace.trigger(0, outcome="merged")
    trace.handled(0)
    [life] = lives_of(trace)
    assert life.merged == 2
    assert life.triggered is not None
    assert life.triggered.host_ns == first["time_ns"]
    assert summarise([life])["merged"] == 2


def test_a_trigger_while_the_handler_runs_is_the_next_delivery() -> None:
    trace = Written()
    trace.trigger(0)
    trace.kick()
    trace.deliver(0)
    trace.trigger(0)
    trace.complete(0)
    trace.deliver(0)  # with the answer to the same EVENT_COMPLETE
    trace.complete(0)
    first, second = lives_of(trace)
    assert (first.outcome, second.outcome) == ("completed", "completed")
    assert second.came is not None
    assert first.completed is not None
    assert second.came.counter == first.completed.counter


def test_a_critical_handler_inside_of_a_normal_one() -> None:
    trace = Written()
    trace.trigger(0x100)
    trace.kick()
    trace.deliver(0x100)
    trace.trigger(0x103)
    trace.kick()
    trace.deliver(0x103)
    trace.wait(40_000)
    trace.complete(0x103)
    trace.wait(1_000)
    trace.complete(0x100)
    outer, inner = lives_of(trace)
    assert (outer.event, outer.nested, inner.nested) == (0x100, 1, 0)
    in_guest = inner.stage("in_guest")
    assert in_guest is not None
    assert outer.nested_ns == in_guest.ns > 40_000


@pytest.mark.parametrize("function", ["SDEI_EVENT_COMPLETE", "SDEI_EVENT_COMPLETE_AND_RESUME"])
def test_a_handler_ends_by_either_call(function: str) -> None:
    trace = Written()
    trace.trigger(0)
    trace.kick()
    trace.deliver(0)
    trace.complete(0, function=function)
    [life] = lives_of(trace)
    assert (life.outcome, life.completed_by) == ("completed", function)


def test_a_cpu_that_goes_off_inside_of_a_handler_completes_nothing() -> None:
    trace = Written()
    trace.trigger(0)
    trace.kick()
    trace.deliver(0)
    trace.call("CPU_OFF", result=None, then="parks")
    trace.transition(0, "running", "enabled", "COMPLETE")
    trace.transition(0, "enabled", "unregistered", "PE_RESET")
    [life] = lives_of(trace)
    assert (life.outcome, life.completed_by) == ("ended", "CPU_OFF")
    assert life.stage("complete") is None


def test_what_is_unregistered_before_it_is_delivered_is_dropped() -> None:
    trace = Written()
    trace.trigger(0, 1)
    trace.trigger(0, 2)
    trace.transition(0, "enabled", "unregistered", "UNREGISTER", vcpu=1)
    dropped, pending = lives_of(trace)
    assert (dropped.outcome, pending.outcome) == ("dropped", "pending")


def test_a_reset_of_the_machine_ends_what_was_on_its_way() -> None:
    trace = Written()
    trace.trigger(0)
    trace.kick()
    trace.deliver(0)
    trace.trigger(0x100)
    trace.add("boot", None, epoch=2)
    assert [life.outcome for life in lives_of(trace)] == ["dropped", "dropped"]


def test_a_shared_event_is_taken_by_whichever_vcpu() -> None:
    trace = Written()
    trace.trigger(0x200, 0)
    trace.kick(3)
    trace.deliver(0x200, 3)
    trace.complete(0x200, 3)
    [life] = lives_of(trace)
    assert (life.vcpu, life.outcome, life.by) == (3, "completed", "host")


def test_a_shared_event_that_another_vcpu_unregisters_is_dropped() -> None:
    trace = Written()
    trace.trigger(0x200, 3)
    trace.transition(0x200, "enabled", "unregistered", "UNREGISTER", vcpu=1)
    [life] = lives_of(trace)
    assert life.outcome == "dropped"


def test_micro_operations_are_part_of_the_exchange_that_asked_for_them() -> None:
    trace = Written()
    trace.trigger(0)
    call = trace.call("MIGRATE_INFO_TYPE", result=None, then="operations")
    trace.wait(30_000)
    trace.arrival("frame", 0, kind="operations", call=call["n"], result=None, then="handler")
    trace.deliver(0)
    trace.complete(0)
    [life] = lives_of(trace)
    assert life.came is not None
    assert life.came.counter == call["counter"]


def test_over_missing_records_nothing_is_paired() -> None:
    trace = Written()
    trace.trigger(0)
    trace.kick()
    trace.deliver(0)
    trace.add("dropped", None, count=400)
    trace.complete(0)
    [life] = lives_of(trace)
    assert life.outcome == "unknown"
    assert summarise([life])["stages"].keys() <= {"to_el3", "decision", "entry"}


@pytest.mark.parametrize(
    ("what", "fields", "name"),
    [
        ("migration", {"phase": "switchover"}, "migration"),
        ("backend", {"what": "incoming"}, "migration"),
        ("backend", {"what": "took-over"}, "restart"),
    ],
)
def test_what_came_in_between_is_no_latency(what: str, fields: dict[str, Any], name: str) -> None:
    trace = Written()
    trace.trigger(0)
    trace.add(what, None, **fields)
    trace.handled(0)
    trace.trigger(0)
    trace.handled(0)
    summary = summarise(lives_of(trace))
    assert summary["disturbed"] == {name: 1}
    assert summary["outcomes"] == {"completed": 2}
    assert summary["stages"]["complete"]["count"] == 1


def test_a_machine_that_was_stopped_meanwhile_was_not_slow() -> None:
    trace = Written()
    trace.handled(0)
    trace.trigger(0)
    trace.wait(3_000_000_000)
    trace.behind += 3_000_000_000
    trace.handled(0)
    before, stopped = lives_of(trace)
    assert (before.disturbed, stopped.disturbed) == (set(), {"stop"})
    in_guest = stopped.stage("in_guest")
    assert in_guest is not None
    assert in_guest.ns < 100_000


def test_a_vcpu_that_was_in_the_firmware_already_waited_for_nothing() -> None:
    trace = Written()
    trace.kick()
    trace.wait(30_000)
    trace.trigger(0)
    trace.deliver(0)
    trace.complete(0)
    [life] = lives_of(trace)
    to_el3 = life.stage("to_el3")
    assert life.was_there
    assert to_el3 is not None
    assert to_el3.ns == 0


def test_a_guest_whose_monitor_tells_no_counter_is_measured_by_the_host() -> None:
    trace = Written()
    trace.trigger(0)
    trace.handled(0)
    for record in trace.records:
        record["counter"], record["at_ns"], record["at_error_ns"] = None, record["time_ns"], 0
    [life] = lives_of(trace)
    assert {stage.clock for name in ("to_el3", "complete") if (stage := life.stage(name))} == {"host"}


def test_a_counter_that_goes_back_gives_no_duration_below_nothing() -> None:
    trace = Written()
    trace.trigger(0)
    trace.handled(0)
    complete = trace.records[-2]
    complete |= {"counter": 5, "at_ns": trace.records[0]["time_ns"] - 10_000_000}
    [life] = lives_of(trace)
    assert life.stage("in_guest") is None
    assert life.stage("complete") is None


def test_the_table_has_a_row_for_each_stage_and_its_error() -> None:
    trace = Written()
    for _ in range(20):
        trace.trigger(0).update(vcpu=0)
        trace.handled(0)
    summary = summarise(lives_of(trace), buckets=True)
    rows = table(summary)
    assert [len(row) for row in rows] == [len(COLUMNS)] * 6
    assert rows[0][0] == "trigger to EL3"
    assert rows[0][-1] == "16 ns"
    assert sum(count for _, _, count in summary["stages"]["complete"]["histogram"]) == 20


# ---- any order of things ---------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from("TTDCWGXS"), st.integers(0, 2), st.sampled_from([0, 0x100]), st.integers(0, 2_000_000)),
    max_size=80,
)


@given(STEPS)
def test_each_completed_event_is_found_once_and_no_duration_is_below_its_error(steps: list[Any]) -> None:
    """A guest of three vCPUs by a model of what may happen; the trace must tell what the model knows."""
    trace = Written()
    pending: set[tuple[int, int]] = set()
    running: dict[int, list[int]] = {0: [], 1: [], 2: []}
    triggers = merged = completed = ended = 0
    for what, vcpu, event, ns in steps:
        trace.wait(ns)
        if what == "T":
            merged += (event, vcpu) in pending
            trace.trigger(event, vcpu, "merged" if (event, vcpu) in pending else "pending")
            triggers += 1
            pending.add((event, vcpu))
        elif what == "D" and (event, vcpu) in pending and event not in running[vcpu]:
            trace.kick(vcpu, late=ns)
            trace.deliver(event, vcpu)
            pending.discard((event, vcpu))
            running[vcpu].append(event)
        elif what == "C" and running[vcpu]:
            trace.complete(running[vcpu].pop(), vcpu)
            completed += 1
        elif what == "G":
            trace.call("SDEI_EVENT_STATUS", event, vcpu=vcpu, result=3)
        elif what == "S" and event == 0:
            merged += (0, vcpu) in pending
            trace.call("SDEI_EVENT_SIGNAL", 0, vcpu, vcpu=(vcpu + 1) % 3)
            triggers += 1
            pending.add((0, vcpu))
        elif what == "X" and (event, vcpu) in pending and event not in running[vcpu]:
            trace.transition(event, "enabled", "unregistered", "UNREGISTER", vcpu)
            pending.discard((event, vcpu))
            ended += 1
    book = LifeBook(META)
    lives = [life for record in trace.records for life in book.feed(record)]
    assert [life.outcome for life in lives].count("completed") == completed
    assert [life.outcome for life in lives].count("dropped") == ended
    assert len(book.open()) == len(pending) + sum(map(len, running.values()))
    every = [*lives, *book.open()]
    assert len({life.n for life in every}) == len(every)
    assert sum(life.merged for life in every) == merged
    assert len(every) + merged == triggers
    for life in every:
        for name in ("to_el3", "decision", "handler", "in_guest", "entry", "complete"):
            stage = life.stage(name)
            assert stage is None or stage.ns >= -stage.error_ns
    summary = summarise(every)
    assert summary["outcomes"].get("completed", 0) == completed


VALUE = st.one_of(st.none(), st.integers(-3, 1 << 70), st.text(max_size=3), st.lists(st.integers(0, 2), max_size=2))
TYPES = st.sampled_from(["call", "frame", "transition", "boot", "dropped", "trigger", "migration", "?"])
FIELDS = ["n", "vcpu", "event", "function", "args", "result", "then", "cause", "to", "kind", "by", "outcome", "counter"]


@given(
    st.lists(
        st.builds(
            lambda kind, rest: {"cause": "DISPATCH", "outcome": "pending", **rest, "type": kind},
            TYPES,
            st.dictionaries(st.sampled_from([*FIELDS, "time_ns", "at_ns", "at_error_ns"]), VALUE),
        ),
        max_size=20,
    )
)
def test_whatever_is_in_the_records_comes_to_a_summary(records: list[dict[str, Any]]) -> None:
    table(summarise(stages(records), buckets=True))
