"""What a backend writes has the form that is declared, and comes out of each view as what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.monitor.layout import Kind
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from qemu_sdei.trace.columns import Columns
from tests.backend.simulated import SimulatedGuest, records, serve
from tests.trace.records import META
from tests.trace.test_record_schema import strictly
from tests.views.test_perfetto import BEGIN, END, ReadBack

NORMAL, CRITICAL = 0, 0x103
HANDLER = 0x4300_0000
"""In guest RAM."""


def lived(path: Path) -> list[dict[str, Any]]:
    """Records of a guest with two vCPUs in which most things happen."""
    guest = SimulatedGuest(2, path)
    server = guest.server()

    def call(pe: int, *words: int) -> None:
        guest.smc(pe, *words)
        serve(server)
        guest.take(pe)

    for pe in (0, 1):
        guest.reset(pe)
        serve(server)
        guest.take(pe)
    call(0, Psci.CPU_ON, 1, 0x4200_0000, 0)
    for _ in range(12):
        serve(server)
        guest.take(1)
    for event in (NORMAL, CRITICAL):
        call(0, Function.EVENT_REGISTER, event, HANDLER, 0xAB, 0, 0)
        call(0, Function.EVENT_ENABLE, event)
    call(0, Function.EVENT_ENABLE, 0x999)
    call(0, Function.EVENT_SIGNAL, NORMAL, 0)  # it waits: the vCPU is masked
    call(0, Function.PE_UNMASK)
    server.trigger(CRITICAL, 0)
    guest.post(0, Kind.KICK)
    serve(server)
    guest.take(0)
    call(0, Function.EVENT_STATUS, NORMAL)
    call(0, Function.EVENT_COMPLETE, 0)
    call(0, Function.EVENT_COMPLETE, 0)
    with pytest.raises(NotDeliveredError):
        server.trigger(0x100, 0)
    call(0, 0xC600_1234, 1, 2)
    call(0, Psci.SYSTEM_OFF)
    return records(server)


def test_they_fit_the_schema(tmp_path: Path) -> None:
    found = lived(tmp_path)
    for record in found:
        strictly(record)
    assert {record["type"] for record in found} >= {"call", "frame", "transition", "trigger", "undelivered", "boot"}


def test_a_critical_handler_inside_a_normal_one_is_seen_as_that(tmp_path: Path) -> None:
    found = lived(tmp_path)
    file = ReadBack(found)
    assert file.slices("vCPU 0") == [("event 0x0 software", 0), ("event 0x103", 1)]
    kinds = [event.type for event in file.on("vCPU 0") if event.type in (BEGIN, END)]
    assert kinds == [BEGIN, BEGIN, END, END]
    assert file.counts("vCPU 0 pending events") == [1, 0, 1, 0]
    signal, trigger = file.named("SDEI_EVENT_SIGNAL"), file.named("trigger 0x103")
    assert list(file.named("event 0x0 software").flow_ids) == list(signal.flow_ids) == [1]
    assert list(file.named("event 0x103").flow_ids) == list(trigger.flow_ids) == [2]
    ends = [e.track_event for e in file.events if e.track_event.name == "SDEI_EVENT_COMPLETE"]
    assert [list(end.terminating_flow_ids) for end in ends] == [[2], [1]]


def test_as_text_each_is_a_line_that_says_what_it_was(tmp_path: Path) -> None:
    columns = Columns(META["events"])
    text = "\n".join(columns.line(record) for record in lived(tmp_path))
    for part in (
        "SDEI_EVENT_REGISTER event=0x0/software entry=0x43000000 argument=0xab flags=0x0 affinity=0x0 -> SUCCESS",
        "SDEI_EVENT_ENABLE event=0x999 -> INVALID_PARAMETERS (-2)",
        "event=0x0/software enabled -> running by DISPATCH (DEN0054 6.1",
        "undelivered: event=0x0/software reason=masked",
        "trigger:     event=0x103 by=host -> pending",
        "0xc6001234 x1=0x1 x2=0x2 x3=",
        "SDEI_PE_UNMASK -> handler",
    ):
        assert part in text


def test_the_first_calls_after_a_reset_have_a_host_time_and_then_few(tmp_path: Path) -> None:
    """Else nobody would know how the counter lies on the host's clock before the 64th."""
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    for _ in range(2):
        guest.reset(0)
        serve(server)
        guest.take(0)
        known = len(records(server))
        for _ in range(200):
            guest.smc(0, Function.EVENT_STATUS, NORMAL)
            serve(server)
            guest.take(0)
        stamped = [record["time_ns"] is not None for record in records(server)[known:]]
        assert all(stamped[:60])
        assert sum(stamped[70:]) < 5
