"""Two traces compared: what differs from run to run is no difference, everything else is found and named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.trace import steps
from qemu_sdei.trace.compare import compare
from qemu_sdei.trace.differences import Comparison
from qemu_sdei.trace.folds import FOLDS
from tests.trace.written import META, Written

ALL = frozenset(FOLDS)


def compared(a: Written, b: Written, *, folds: frozenset[str] = ALL, **options: Any) -> Comparison:
    return compare((META, a.records), (META, b.records), folds=folds, **options)


def booted(slide: int = 0, *, start: int = 5_000_000_000, events: int = 1, handled_after: int = 3) -> Written:
    """A kernel boots two CPUs, registers an event on each, and takes some."""
    trace = Written(start)
    trace.add("boot", None, epoch=1)
    trace.call("PSCI_VERSION", result=0x1_0001)
    calls = 0

    def maybe_handled() -> None:
        nonlocal calls
        calls += 1
        if calls == handled_after:
            for n in range(events):
                trace.trigger(0)
                trace.handled(0, context=slide + n)

    trace.register(0, 0xFFFF_8000_0801_0000 + slide)
    for feature in range(5):
        trace.call("PSCI_FEATURES", 0x8400_0000 + feature, result=0)
        maybe_handled()
    trace.call("CPU_ON", 1, 0x4020_0000 + slide, slide + 8)
    for _ in range(2 + slide % 3):
        trace.call("AFFINITY_INFO", 1, 0, result=2)
    trace.call("AFFINITY_INFO", 1, 0, result=0)
    trace.add("power", 1, **{"from": "off", "to": "on"})
    trace.register(0, 0xFFFF_8000_0801_0000 + slide, vcpu=1)
    trace.call("TRNG_VERSION", 7 + slide, 1 + slide, 2, 3, 4, result=-1)
    return trace


def test_two_boots_of_one_kernel_are_the_same() -> None:
    """Addresses slide, events come at another moment and another number of times, a CPU takes longer to come."""
    found = compared(booted(), booted(0x20_0001, start=77, events=9, handled_after=1))
    assert found.same, found.document()
    assert found.equal > 15
    assert found.first is None


@pytest.mark.parametrize("fold", sorted(ALL - {"counts", "idle", "places"}))
def test_what_is_folded_is_a_difference_if_it_is_not(fold: str) -> None:
    found = compared(booted(), booted(0x20_0001, events=9, handled_after=1), folds=ALL - {fold})
    assert not found.same
    text = str(found.document())
    sign = {
        "addresses": "0xffff800008210001",
        "values": "0x200001",
        "repeats": "AFFINITY_INFO",
        "moments": "handler of event 0x0 begins",
    }[fold]
    assert sign in text


def test_the_first_divergence_is_the_earliest_one_of_all_vcpus() -> None:
    a, b = booted(), booted()
    a.call("SDEI_PE_MASK", vcpu=1)
    a.call("SDEI_PE_MASK", vcpu=0)
    b.call("SDEI_PE_UNMASK", vcpu=0)
    b.call("SDEI_PE_UNMASK", vcpu=1)
    found = compared(a, b)
    assert found.first is not None
    assert (found.first.vcpu, found.first.event) == (1, None)
    assert [step.text for step in found.first.only_a] == ["SDEI_PE_MASK() = 0"]
    assert [step.text for step in found.first.only_b] == ["SDEI_PE_UNMASK() = SUCCESS"]
    assert [step.text.partition("(")[0] for step in found.first.before][-1] == "SDEI_EVENT_ENABLE"
    assert [one.vcpu for one in found.firsts] == [1, 0]
    assert {(one.vcpu, one.step) for one in found.only_a} == {(0, "SDEI_PE_MASK()"), (1, "SDEI_PE_MASK()")}


def test_a_call_that_is_answered_differently_says_both_answers_and_their_clauses() -> None:
    a, b = booted(), booted()
    a.call("SDEI_EVENT_ENABLE", 0)
    a.transition(0, "enabled", "enabled", "ENABLE")
    b.call("SDEI_EVENT_ENABLE", 0, result=-3)
    found = compared(a, b)
    assert not found.only_a
    assert not found.only_b
    [one] = found.answers
    assert (one.vcpu, one.call, one.a, one.b, one.times) == (0, "SDEI_EVENT_ENABLE(event=0x0)", "SUCCESS", "DENIED", 1)
    assert one.clause_a == "DEN0054 5.1.3; idempotent (TFA, REV)"
    assert one.clause_b == "DEN0054 5.1.3"
    assert found.first is not None
    assert found.first.clause_a == one.clause_a


def test_a_refusal_names_the_row_of_the_state_that_the_event_was_in() -> None:
    a, b = Written(), Written()
    a.call("SDEI_EVENT_UNREGISTER", 0, result=0)
    b.register(0, 0x1000)
    b.call("SDEI_EVENT_REGISTER", 0, 0x1000, 0, 0, 0, result=-3)
    a.register(0, 0x1000)
    a.call("SDEI_EVENT_REGISTER", 0, 0x1000, 0, 0, 0, result=-2)
    [one] = compared(a, b).answers
    assert one.clause_b == "DEN0054 5.1.2, ACS3, ACS21, TFTF"


def test_what_a_call_brings_about_is_compared_too() -> None:
    a, b = Written(), Written()
    for trace, after in ((a, "registered"), (b, "unregistered")):
        trace.register(0, 0x1000)
        trace.call("SDEI_EVENT_DISABLE", 0)
        trace.transition(0, "enabled", after, "DISABLE")
    [one] = compared(a, b).answers
    assert (one.a, one.b) == ("event 0x0: enabled -> registered", "event 0x0: enabled -> unregistered")


def test_states_are_not_compared_with_a_trace_that_has_none() -> None:
    a, b = booted(events=0), booted(events=0)
    b.records = [record for record in b.records if record["type"] != "transition"]
    found = compared(a, b)
    assert found.same
    assert found.notes == ["B has no transitions: states of events are not compared"]


def test_a_handler_that_a_call_ends_in_hides_its_result_and_is_no_difference() -> None:
    a, b = Written(), Written()
    a.register(0, 0x1000)
    a.call("SDEI_PE_UNMASK", result=0)
    a.handled(0)
    b.register(0, 0x1000)
    b.call("SDEI_PE_UNMASK", result=None)
    b.deliver(0)
    b.call("SDEI_EVENT_CONTEXT", 0, result=5)
    b.complete(0)
    assert compared(a, b).same


def test_an_insertion_is_one_difference_and_not_the_end_of_it() -> None:
    a, b = Written(), Written()
    for n in range(200):
        a.call("PSCI_FEATURES", n)
        b.call("PSCI_FEATURES", n)
        if n == 77:
            for more in range(30):
                b.call("SDEI_EVENT_STATUS", more, result=1)
    found = compared(a, b)
    assert found.equal == 200
    assert found.first is not None
    assert found.first.after == 78
    assert len(found.first.only_b) == 30
    assert sum(one.times for one in found.only_b) == 30
    assert not found.only_a


def test_a_function_of_which_one_trace_has_numbers_only_is_compared_by_these() -> None:
    a, b = booted(), booted()
    a.add("counted", 1, function="SDEI_VERSION", id=0, count=3, since_ns=0)
    for _ in range(3):
        b.call("SDEI_VERSION", vcpu=1, result=5)
    assert compared(a, b).same
    b.call("SDEI_VERSION", vcpu=1, result=5)
    assert compared(a, b).same
    assert compared(a, b, folds=ALL - {"counts"}).counted == [("SDEI_VERSION", 1, 3, 4)]
    a.add("counted", 1, function="SMCCC_VERSION", id=0, count=1, since_ns=0)
    assert compared(a, b).counted == [("SMCCC_VERSION", 1, 1, 0)]


def test_on_which_vcpu_a_task_asks_is_chance_and_which_vcpu_does_something_to_itself_is_not() -> None:
    a, b = booted(), booted()
    for trace, vcpu in ((a, 0), (b, 1)):
        trace.call("SDEI_EVENT_GET_INFO", 0, 2, vcpu=vcpu)
        trace.call("SDEI_EVENT_REGISTER", 0x200, 0x1000, 0, 0, 0, vcpu=vcpu)
        trace.call("SDEI_FEATURES", 0, vcpu=vcpu, result=4)
    assert compared(a, b).same
    assert not compared(a, b, folds=ALL - {"places"}).same
    b.call("SDEI_EVENT_GET_INFO", 0, 2, vcpu=0)
    assert [one.step for one in compared(a, b).only_b] == ["SDEI_EVENT_GET_INFO(event=0x0, info=0x2)"]
    a, b = booted(), booted()
    for trace, vcpu in ((a, 0), (b, 1)):
        trace.call("SDEI_EVENT_REGISTER", 0x100, 0x1000, 0, 0, 0, vcpu=vcpu)
    found = compared(a, b)
    assert [one.vcpu for one in found.only_a] == [0]
    assert [one.vcpu for one in found.only_b] == [1]


def test_a_register_that_looks_like_an_error_is_none_and_handlers_end_in_either_way() -> None:
    a, b = Written(), Written()
    for trace, registers, function in (
        (a, (5, 7), "SDEI_EVENT_COMPLETE"),
        (b, (-1, -3, 8), "SDEI_EVENT_COMPLETE_AND_RESUME"),
    ):
        trace.register(0, 0x1000)
        for register in registers:
            trace.kick()
            trace.deliver(0)
            trace.call("SDEI_EVENT_CONTEXT", 17, result=register)
            trace.call("SDEI_EVENT_CONTEXT", 18, result=-2)
            trace.complete(0, function=function)
    assert compared(a, b).same
    assert not compared(a, b, folds=ALL - {"values"}).same
    assert not compared(a, b, folds=ALL - {"moments"}).same
    b.kick()
    b.deliver(0)
    b.call("SDEI_EVENT_CONTEXT", 17, result=0)
    b.call("SDEI_EVENT_CONTEXT", 18, result=5)
    b.complete(0)
    assert not compared(a, b).same


def test_of_a_handler_that_goes_two_ways_each_is_compared_once() -> None:
    def trace(ways: str) -> Written:
        made = Written()
        for way in ways:
            made.kick()
            made.deliver(0)
            for n in range(3 if way == "x" else 5):
                made.call("SDEI_EVENT_CONTEXT", n, result=n)
            made.complete(0)
        return made

    assert compared(trace("xyxyyx"), trace("xxxy")).same
    assert not compared(trace("xyxyyx"), trace("xxx")).same


def test_idle_calls_are_compared_by_their_answers() -> None:
    a, b = booted(), booted()
    for n in range(40):
        a.call("CPU_SUSPEND", 1, 0x1000, 0, result=0)
        b.call("CPU_SUSPEND", 1, 0x1000, 0, result=0, vcpu=0)
        if n % 3 == 0:
            b.call("SDEI_EVENT_STATUS", 0, result=3)
            a.call("SDEI_EVENT_STATUS", 0, result=3)
    for _ in range(7):
        b.call("CPU_SUSPEND", 1, 0x1000, 0, result=0)
    assert compared(a, b).same
    assert not compared(a, b, folds=ALL - {"idle"}).same
    b.call("CPU_SUSPEND", 1, 0x1000, 0, result=-3)
    [one] = compared(a, b).only_b
    assert one.step == "CPU_SUSPEND(power_state=0x1, entry=*, context=0) = DENIED"


def test_an_answer_that_came_after_micro_operations_is_the_calls() -> None:
    def trace(result: int) -> Written:
        made = Written()
        call = made.call("MIGRATE_INFO_TYPE", result=None, then="operations")
        made.arrival("frame", 0, kind="operations", call=call["n"], result=result, result_name=None, then="returns")
        return made

    assert compared(trace(2), trace(2)).same
    [one] = compared(trace(2), trace(3)).answers
    assert (one.a, one.b) == ("2", "3")


def test_whose_call_changes_a_shared_event_is_no_difference() -> None:
    a, b = Written(), Written()
    for trace, vcpu in ((a, 0), (b, 2)):
        trace.call("SDEI_EVENT_ENABLE", 0x200)
        trace.transition(0x200, "registered", "enabled", "ENABLE", vcpu)
    assert compared(a, b).same
    for trace, vcpu in ((a, 0), (b, 2)):
        trace.call("SDEI_PRIVATE_RESET")
        trace.transition(0, "registered", "unregistered", "UNREGISTER", vcpu)
    assert not compared(a, b).same


def test_power_is_compared_but_for_idle_states() -> None:
    a, b = booted(), booted()
    for _ in range(3):
        b.add("power", 1, **{"from": "on", "to": "suspended"})
        b.add("power", 1, **{"from": "suspended", "to": "on"})
    assert compared(a, b).same
    b.add("power", 1, **{"from": "on", "to": "off"})
    [one] = compared(a, b).only_b
    assert (one.vcpu, one.step) == (1, "power: off")


def test_an_exception_that_only_one_takes() -> None:
    a, b = booted(), booted()
    b.arrival("frame", 1, kind="exception", vector=0x400, esr=0x96000045, then="parks")
    [one] = compared(a, b).only_b
    assert (one.vcpu, one.step) == (1, "exception: vector 0x400, ESR 0x96000045")


def test_what_a_cpu_that_is_waited_for_answered_last_counts() -> None:
    a, b = Written(), Written()
    for trace, answers in ((a, (2, 2, 0)), (b, (2, 2, 2))):
        for answer in answers:
            trace.call("AFFINITY_INFO", 1, 0, result=answer)
    [one] = compared(a, b).answers
    assert (one.a, one.b) == ("0", "2")


def test_after_a_reset_no_handler_runs() -> None:
    a, b = Written(), Written()
    for trace in (a, b):
        trace.register(0, 0x1000)
    b.kick()
    b.deliver(0)
    for trace in (a, b):
        trace.add("boot", None, epoch=2)
        trace.register(0, 0x1000)
    found = compared(a, b)
    assert [(one.event, one.step) for one in found.only_b] == [(0, "handler of event 0x0 begins")]


@pytest.mark.parametrize(("silent", "order"), [(0, [1, 2, 3, 0]), (2_000_000_000, [1, 2, 0, 3])])
def test_differences_of_one_alone_are_in_the_order_in_which_they_come(silent: int, order: list[int]) -> None:
    """A sequence that ends just before its trace does may have been overtaken; one that is silent for long stopped."""
    a, b = Written(), Written()
    for n in range(20):
        for trace in (a, b):
            trace.call("PSCI_FEATURES", n, vcpu=0 if n < 15 else 3)
            if n < 5:
                trace.call("PSCI_FEATURES", n, vcpu=1)
        if n == 4:
            b.call("SDEI_PE_MASK", vcpu=1)
            b.call("SDEI_PE_MASK", vcpu=2)
        if n == 14:
            b.call("SDEI_PE_MASK", vcpu=0)
        if n == 16:
            a.call("SDEI_PE_UNMASK", vcpu=3)
    for trace in (a, b):
        trace.wait(silent)
        trace.call("SDEI_VERSION", vcpu=1)
    assert [one.vcpu for one in compared(a, b).firsts] == order
    assert [one.vcpu for one in compared(b, a).firsts] == order


def test_a_guest_that_registers_nothing_hides_nothing() -> None:
    a, b = Written(), Written()
    for trace in (a, b):
        trace.call("SDEI_PRIVATE_RESET")
    b.register(0, 0x1000)
    assert compared(a, b).notes == []


def test_a_handler_that_calls_without_end_is_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_MAX_RUN", 3)
    a, b = Written(), Written()
    for trace, runs in ((a, 1), (b, 2)):
        for _ in range(runs):
            trace.kick()
            trace.deliver(0)
            for n in range(4):
                trace.call("SDEI_EVENT_CONTEXT", n, result=5)
            trace.complete(0)
    assert sum(one.times for one in compared(a, b).only_b) == 6


def test_another_order_is_a_difference_and_neither_has_more() -> None:
    a, b = Written(), Written()
    for trace, order in ((a, (1, 2, 3)), (b, (1, 3, 2))):
        for n in order:
            trace.call("PSCI_FEATURES", n)
    found = compared(a, b)
    assert not found.same
    assert not found.only_a
    assert not found.only_b
    assert len(found.moved) == 1


def test_what_is_missing_is_said() -> None:
    a, b = booted(), booted()
    b.records[:9] = [{"n": 9, "type": "dropped", "count": 9}]
    b.add("dropped", None, count=12)
    assert compared(a, b).notes == [
        "B begins within the guest's life: 9 records before it are missing",
        "B lacks 12 records: what only the other one has may be among them",
    ]


def test_only_one_vcpu_if_that_is_wanted() -> None:
    a, b = booted(), booted()
    a.call("SDEI_PE_MASK", vcpu=1)
    assert compared(a, b, vcpu=0).same
    assert not compared(a, b, vcpu=1).same


def test_a_trace_without_end_is_compared_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MAX_STEPS", 100)
    a, b = Written(), Written()
    for n in range(300):
        a.call("PSCI_FEATURES", n)
        b.call("PSCI_FEATURES", n)
    found = compared(a, b)
    assert found.notes == ["of A only the first 100 steps are compared", "of B only the first 100 steps are compared"]


VALUE = st.one_of(st.none(), st.integers(-3, 1 << 70), st.text(max_size=3), st.lists(st.integers(0, 2), max_size=2))
TYPES = st.sampled_from(
    ["call", "frame", "transition", "counted", "power", "boot", "dropped", "trigger", "reject", "?"]
)
FIELDS = [
    "n",
    "vcpu",
    "event",
    "function",
    "args",
    "result",
    "result_name",
    "then",
    "cause",
    "to",
    "count",
    "kind",
    "why",
]
NOISE = st.lists(
    st.builds(lambda kind, rest: {**rest, "type": kind}, TYPES, st.dictionaries(st.sampled_from(FIELDS), VALUE)),
    max_size=12,
)


@given(NOISE, NOISE)
def test_whatever_is_in_the_records_comes_to_a_result(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> None:
    compare((META, a), (META, b)).document()
    assert compare((META, a), (META, a)).same
