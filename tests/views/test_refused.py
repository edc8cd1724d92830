"""Why something was refused: by the state that its event was in, and the rule for that state."""

from __future__ import annotations

from typing import Any

import pytest

from qemu_sdei.sdei.constants import CODE_NAMES, SUCCESS
from qemu_sdei.sdei.transitions import ROWS, STATE_NAMES, Action
from qemu_sdei.views.moments import Moments
from qemu_sdei.views.refused import Refusal, Refusals
from tests.views.sample import Writer

CALLS = {
    Action.REGISTER: "SDEI_EVENT_REGISTER",
    Action.ENABLE: "SDEI_EVENT_ENABLE",
    Action.DISABLE: "SDEI_EVENT_DISABLE",
    Action.UNREGISTER: "SDEI_EVENT_UNREGISTER",
    Action.ROUTING_SET: "SDEI_EVENT_ROUTING_SET",
    Action.RELEASE: "SDEI_INTERRUPT_RELEASE",
}
ROWS_REFUSED = [
    (row, state)
    for row in ROWS
    if row.action in CALLS and row.result != SUCCESS and CODE_NAMES[row.result] != "PENDING"
    for state in row.states
]


def refused(*records: dict[str, Any], shared: frozenset[int] = frozenset()) -> list[Refusal]:
    refusals, moments = Refusals(shared), Moments()
    for record in records:
        refusals.add(moments.moment(record))
    return refusals.groups


@pytest.mark.parametrize(("row", "state"), ROWS_REFUSED)
def test_each_rule_of_the_state_table_is_named(row: Any, state: int) -> None:
    write = Writer()
    (group,) = refused(
        write.transition(0, 0, 1, state, "ENABLE"),
        write.call(0, CALLS[row.action], 0xC400_0021, row.result, named=CODE_NAMES[row.result], args={"event": 0}),
    )
    assert group.why == f"the event is {STATE_NAMES[state]}"
    assert group.clause == row.source
    assert group.answer == CODE_NAMES[row.result]


def test_a_private_event_of_another_vcpu_says_nothing() -> None:
    write = Writer()
    (group,) = refused(
        write.transition(1, 0, 1, 3, "ENABLE"),
        write.call(0, "SDEI_EVENT_ENABLE", 0xC400_0022, -3, named="DENIED", args={"event": 0}),
    )
    assert group.why == "the event's state is “unregistered” or “running, unregister pending”"


def test_a_shared_event_s_state_is_that_on_all_vcpus() -> None:
    write = Writer()
    (group,) = refused(
        write.transition(1, 0x200, 1, 0, "UNREGISTER"),
        write.call(0, "SDEI_EVENT_ENABLE", 0xC400_0022, -3, named="DENIED", args={"event": 0x200}),
        shared=frozenset((0x200,)),
    )
    assert group.why == "the event is unregistered"


def test_a_signal_is_refused_by_the_state_at_its_target() -> None:
    write = Writer()
    signal = {"event": 0, "target": 1}
    (group,) = refused(
        write.transition(0, 0, 1, 3, "ENABLE"),
        write.transition(1, 0, 1, 0, "UNREGISTER"),
        write.call(0, "SDEI_EVENT_SIGNAL", 0xC400_002F, -2, named="INVALID_PARAMETERS", args=signal),
    )
    assert group.why == "the event is unregistered"
    assert group.clause.startswith("DEN0054 5.1.16")


def test_complete_without_a_handler() -> None:
    write = Writer()
    (group,) = refused(write.call(0, "SDEI_EVENT_COMPLETE", 0xC400_0025, -3, named="DENIED", args={"status": 0}))
    assert group.why == "no handler runs on this vCPU"
    assert "5.1.6" in group.clause


def test_other_refusals_have_their_clause_too() -> None:
    write = Writer()
    groups = refused(
        write.call(0, "SDEI_EVENT_GET_INFO", 0xC400_0029, -2, named="INVALID_PARAMETERS", args={"event": 1, "info": 9}),
        write.call(0, "CPU_ON", 0xC400_0003, -4, named="ALREADY_ON", args={"target": 1}),
        write.record("trigger", 0, event=0, by="host", outcome="refused", why="PE 0 is off"),
        write.record("unknown", 0, id=0xC600_0001),
        write.record("reject", 0, why="a forged frame"),
    )
    assert [(group.answer, group.clause) for group in groups] == [
        ("INVALID_PARAMETERS", "DEN0054 5.1.10"),
        ("ALREADY_ON", "DEN0022 5.1.4"),
        ("refused", "DEN0054 5.1.16"),
        ("NOT_SUPPORTED", "DEN0028"),
        ("", ""),
    ]
    assert groups[1].why == "that CPU is on"
    assert groups[2].why == "PE 0 is off"
    assert groups[4].why == "a forged frame"


def test_what_is_no_refusal() -> None:
    write = Writer()
    assert not refused(
        write.call(0, "SDEI_EVENT_REGISTER", 0xC400_0021, 0, args={"event": 0}),
        write.call(0, "SDEI_EVENT_UNREGISTER", 0xC400_0027, -5, named="PENDING", args={"event": 0}),
        write.call(0, "SDEI_EVENT_CONTEXT", 0xC400_0024, -1 - (1 << 40), named=None, args={"index": 0}),
        write.call(0, "SDEI_EVENT_COMPLETE", 0xC400_0025, None, then="resumes"),
        write.call(0, "PSCI_FEATURES", 0x8400_000A, -1, named="NOT_SUPPORTED", args={"function": 0x8400_0015}),
    )


def test_the_same_refusal_is_one_line_however_often_it_comes() -> None:
    write = Writer()
    calls = [
        write.call(n % 3, "SDEI_EVENT_ENABLE", 0xC400_0022, -3, named="DENIED", args={"event": 0}) for n in range(9)
    ]
    (group,) = refused(*calls)
    assert (group.count, group.vcpus, group.first, group.last) == (9, {0, 1, 2}, 1, 9)


def test_refusals_without_end_are_counted() -> None:
    refusals, moments, write = Refusals(), Moments(), Writer()
    for number in range(3000):
        refusals.add(moments.moment(write.record("reject", 0, why=f"number {number}")))
    assert len(refusals.groups) == 1000
    assert refusals.left_out == 2000
    assert refusals.total == 3000
