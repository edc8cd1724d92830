"""Pages of real guests: what a reader finds in them is what has happened."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from qemu_sdei import Guest, GuestOptions
from qemu_sdei.trace.reading import open_trace
from tests.guest.guests import command
from tests.views.pages import Page

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64"),
]


def run(runtime: Path, *words: str) -> tuple[int, str]:
    with command(runtime, *words) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out.decode() + err.decode()


def test_a_guest_that_runs_and_the_trace_that_it_leaves(runtime: Path, tmp_path: Path) -> None:
    trace = tmp_path / "guest.trace"
    options = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", smp=2, name="paged", trace=trace)
    with Guest(options) as guest:
        guest.expect("idle: ready")
        for vcpu in (0, 1, 1, 0, 1):
            guest.inject(0, vcpu, wait=True)
        code, said = run(runtime, "report", "-o", str(tmp_path / "running.html"), "-q")
        assert code == 0, said
    running = Page((tmp_path / "running.html").read_text())
    assert "idle: ready" in running.text
    handlers = {lane["vcpu"]: lane["handlers"] for lane in running.data["lanes"] if lane["vcpu"] is not None}
    assert {vcpu: len(spans) for vcpu, spans in handlers.items()} == {0: 2, 1: 3}
    for start, end, event, depth, asked, _, how in (*handlers[0], *handlers[1]):
        assert asked <= start < end
        assert (event, depth, how) == (0, 0, "complete")
    assert "entry to complete" in running.text
    assert running.data["arrows"]["0x0"]["3-7"] == running.data["arrows"]["0x0"]["7-3"] == 5

    # The whole of it, with the guest's last records.
    code, said = run(runtime, "report", str(trace), "-o", str(tmp_path / "file.html"), "-q", "--json")
    assert code == 0, said
    with open_trace(trace) as reading:
        assert json.loads(said)["records"] == sum(1 for _ in reading.records())
    assert Page((tmp_path / "file.html").read_text()).data["arrows"] == running.data["arrows"]


def test_the_selftest_and_a_conformance_run_write_their_page(runtime: Path, tmp_path: Path) -> None:
    code, said = run(runtime, "selftest", "--report", str(tmp_path / "selftest.html"), "-q")
    assert code == 0, said
    page = Page((tmp_path / "selftest.html").read_text())
    assert "Result: OK" in page.text
    assert re.search(r"SDEI_EVENT_REGISTER\s*\d", page.text)
    code, said = run(runtime, "conformance", "--filter", "1-20", "--report", str(tmp_path / "conformance.html"), "-q")
    assert code == 0, said
    page = Page((tmp_path / "conformance.html").read_text())
    assert "SDEI conformance" in page.text
    assert "DENIED" in page.text
    assert not page.data["details"] or page.data["total"] > 100
