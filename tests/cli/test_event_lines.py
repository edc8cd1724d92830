"""What happens in a guest, as lines: each kind of record in words, and nothing of a guest's that a terminal obeys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei import rundir
from qemu_sdei.cli.event_lines import Lines
from qemu_sdei.cli.record_feed import RecordFeed, as_record
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.sdei.transitions import ROWS, STATE_NAMES
from tests.cli.test_hostile_text import hostile
from tests.examples import examples
from tests.trace.test_ring import made, noted

NAMES = {0: "software", 0x100: "private-a"}


def words(**record: Any) -> str | None:
    line = Lines(NAMES).line({"n": 1, "vcpu": 1, "time_ns": 5, "at_ns": 5, "at_error_ns": 0, **record})
    return None if line is None else line.what


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"type": "transition", "event": 0, "from": "enabled", "to": "running", "cause": "DISPATCH"},
         "handler entered"),
        ({"type": "transition", "event": 0, "from": "running", "to": "enabled", "cause": "COMPLETE"},
         "handler completed"),
        ({"type": "transition", "event": 0, "from": "running, disabled", "to": "registered", "cause": "COMPLETE"},
         "handler completed; it is registered now"),
        ({"type": "transition", "event": 0, "from": "running", "to": "running, unregister pending",
          "cause": "UNREGISTER"}, "unregister is pending: the handler still runs"),
        ({"type": "transition", "event": 0, "from": "enabled", "to": "unregistered", "cause": "UNREGISTER"},
         "unregistered"),
        ({"type": "trigger", "event": 0, "by": "host", "outcome": "pending"}, "triggered by the host: it is pending"),
        ({"type": "trigger", "event": 0, "by": "interrupt", "outcome": "merged"},
         "triggered by a bound interrupt: merged with one that is pending"),
        ({"type": "trigger", "event": 0, "by": "host", "outcome": "refused", "why": "PE 1 is off"},
         "triggered by the host: refused: PE 1 is off"),
        ({"type": "undelivered", "event": 0, "why": "PE 1 is masked", "reason": "masked"},
         "not delivered: PE 1 is masked"),
        ({"type": "call", "function": "SDEI_EVENT_SIGNAL", "args": {"event": 0, "target": 1}, "result": 0,
          "result_name": "SUCCESS"}, "signalled by EVENT_SIGNAL: SUCCESS"),
        ({"type": "power", "from": "off", "to": "on", "entry": 0x4020_0000}, "power: off -> on, at 0x40200000"),
        ({"type": "boot", "epoch": 2}, "boot 2: the machine was reset"),
        ({"type": "kernel", "kernels": 2}, "kernel 2 has begun"),
        ({"type": "backend", "what": "took-over", "pid": 5}, "backend 5 took over"),
        ({"type": "reject", "why": "a frame"}, "rejected: a frame"),
        ({"type": "unknown", "id": 0xC600_0000}, "a call that nobody serves: 0xc6000000"),
        ({"type": "dropped", "count": 7}, "7 records are missing here"),
        ({"type": "note", "name": "held", "point": "pending"}, "held point=pending"),
        ({"type": "new-in-a-later-version", "x": 1}, "new-in-a-later-version x=1"),
        ({"type": "call", "function": "SDEI_VERSION", "args": {}}, None),
        ({"type": "frame", "kind": "kick"}, None),
        ({"type": "counted", "function": "SDEI_VERSION", "count": 5}, None),
    ],
)  # fmt: skip
def test_words(record: dict[str, Any], shown: str | None) -> None:
    assert words(**record) == shown


def test_each_change_of_state_has_words() -> None:
    """Whatever the state table can do."""
    for row in ROWS:
        for state in row.states:
            if row.next is not None and row.next != state:
                cause = row.action.name
                shown = words(
                    type="transition", event=0, cause=cause, **{"from": STATE_NAMES[state], "to": STATE_NAMES[row.next]}
                )
                assert shown
                assert cause not in shown, "a word of the code's is none for people"


def test_a_line_has_columns() -> None:
    line = Lines(NAMES).line({"type": "transition", "vcpu": 3, "event": 0x100, "from": "enabled", "to": "running",
                              "cause": "DISPATCH", "time_ns": 1, "at_ns": 1})  # fmt: skip
    assert line is not None
    assert line.text()[15:] == "  vCPU 3   0x100 private-a     handler entered"
    assert line.text()[8] == "."


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), hostile),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(hostile, inner, max_size=3)),
    max_leaves=6,
)
KINDS = ("transition", "trigger", "undelivered", "call", "power", "boot", "kernel", "backend", "migration", "injection",
         "ras", "reject", "unknown", "dropped", "note", "else")  # fmt: skip


@settings(max_examples=examples(40), deadline=None)
@given(
    st.sampled_from(KINDS),
    st.dictionaries(
        st.sampled_from(
            [
                "event",
                "from",
                "to",
                "cause",
                "by",
                "outcome",
                "why",
                "function",
                "args",
                "result",
                "result_name",
                "entry",
                "epoch",
                "vcpu",
                "at_ns",
                "time_ns",
                "kernels",
                "pid",
                "what",
                "phase",
                "text",
                "id",
                "count",
                "name",
            ]
        ),
        JSON,
    ),
    hostile,
)
def test_records_that_say_anything(kind: str, fields: dict[str, Any], name: str) -> None:
    """A line of one record is one line; nothing in it is obeyed; and none is no reason to end."""
    record = {"type": kind, "function": "SDEI_EVENT_SIGNAL", **fields}
    line = Lines({0: name}).line(record)
    if line is not None:
        assert line.text().isprintable()
        assert len(line.text()) < 1000


def test_the_feed_reads_the_ring_and_nothing_twice(runtime: Path) -> None:
    """Where a guest has moved on this host, its next ring may begin with what was seen."""
    here, there = runtime / "a", runtime / "b"
    here.mkdir()
    there.mkdir()
    ring = made(here / rundir.TRACE)
    noted(ring, 3)
    client = ControlClient(here / rundir.CONTROL)
    feed = RecordFeed(client)
    assert [record["why"] for record in feed.poll()] == ["number 0", "number 1", "number 2"]
    assert feed.poll() == []
    noted(ring, 1, 3)
    assert [record["why"] for record in feed.poll()] == ["number 3"]
    moved = made(there / rundir.TRACE)
    noted(moved, 6)
    client._connection.path = there / rundir.CONTROL
    assert [record["why"] for record in feed.poll()] == ["number 4", "number 5"]
    feed.close()


def test_what_an_older_backend_tells() -> None:
    told = {"time_ns": 5, "type": "deliver", "pe": 1, "event": 0, "from": 3, "to": 7, "cause": "DISPATCH"}
    assert as_record(told) == {
        "n": 0, "type": "transition", "vcpu": 1, "time_ns": 5, "at_ns": 5, "at_error_ns": 0, "event": 0,
        "from": "enabled", "to": "running", "cause": "DISPATCH",
    }  # fmt: skip
    assert as_record({"type": "reset", "pe": 0, "epoch": 2})["type"] == "boot"
    assert as_record({"type": "power", "pe": 0, "state": "off"})["to"] == "off"
    assert as_record({"type": "held", "pe": 0})["name"] == "held"
    new = {"n": 3, "type": "power", "vcpu": 1, "time_ns": 7, "from": "off", "to": "on"}
    assert as_record(new) == new
