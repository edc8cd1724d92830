"""Linux' own ftrace and our trace of one event lie on one axis."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.guest.guest import Guest
from qemu_sdei.trace.ftrace import open_with_ftrace
from qemu_sdei.trace.guest_clock import PROBES
from qemu_sdei.views.perfetto import write_perfetto
from qemu_sdei.vm.options import GuestOptions
from tests.trace.test_record_schema import strictly

pytestmark = pytest.mark.guest

RUN_NS = 200_000_000
"""How long the handler runs: much longer than times are off."""
TRACING = "/sys/kernel/tracing"
SET_UP = f"""\
test -e {TRACING}/trace || mount -t tracefs nodev {TRACING}
cd {TRACING} && echo 0 >tracing_on && echo local >trace_clock && echo >trace
echo on_event >set_ftrace_filter && echo function >current_tracer && echo 1 >tracing_on"""


def shell(guest: Guest, command: str) -> str:
    result = guest.run(command)
    assert result.status == 0, result.output
    return result.output


def seen(guest: Guest, text: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The note at the head of ftrace's lines; the newest delivery of event 0, ftrace's line of its handler, and the
    call that completes it.
    """
    text.write_text(shell(guest, f"cat {TRACING}/trace"))
    with open_with_ftrace(rundir.find(guest.name).path / rundir.TRACE, text) as reading:
        records = list(reading.records())
        out = io.BytesIO()
        assert write_perfetto(out, reading.meta.document(), records).handlers >= 1
    for record in records:
        strictly(record)
    note = next(record for record in records if record.get("name") == "ftrace")
    deliver = [record for record in records if record.get("cause") == "DISPATCH"][-1]
    line = [r for r in records if r["type"] == "ftrace" and r["text"].startswith("on_event <-")][-1]
    complete = [record for record in records if str(record.get("function")).startswith("SDEI_EVENT_COMPLETE")][-1]
    return note, deliver, line, complete


@pytest.mark.parametrize("series", ["6.12", pytest.param("6.1", marks=pytest.mark.slow)])
def test_ftrace_s_line_of_a_handler_lies_between_our_delivery_and_its_completion(series: str, tmp_path: Path) -> None:
    with Guest(GuestOptions(series=series, client=True, smp=2)) as guest:
        client = guest.sdei_client(events=[0])
        client.run_for(RUN_NS)

        shell(guest, SET_UP)
        probes = "; ".join(f"echo '{probe}' >>{TRACING}/kprobe_events" for probe in PROBES)
        shell(guest, probes)
        switch = f"{TRACING}/events/kprobes/enable"
        shell(guest, f"echo 1 >{switch}; sleep 0.1; echo 0 >{switch}")
        guest.inject(0, vcpu=1, wait=True)
        by_probes = seen(guest, tmp_path / "probes")

        shell(guest, SET_UP)
        client.mark_trace()
        guest.inject(0, vcpu=1, wait=True)
        by_marks = seen(guest, tmp_path / "marks")

    for note, deliver, line, complete in (by_probes, by_marks):
        assert deliver["vcpu"] == line["vcpu"] == complete["vcpu"] == 1
        assert line["at_error_ns"] < RUN_NS // 4, "too inexact to say anything"
        assert deliver["at_ns"] - deliver["at_error_ns"] <= line["at_ns"] + line["at_error_ns"]
        assert line["at_ns"] + RUN_NS - line["at_error_ns"] <= complete["at_ns"] + complete["at_error_ns"]
        assert line["at_ns"] < complete["at_ns"]
        assert note["not_understood"] == 0
    assert by_probes[0]["clock_error_ns"] <= by_marks[0]["clock_error_ns"]
