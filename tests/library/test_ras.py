"""Errors for a guest: what is refused before anything is written, where a page is, what the kernel made of it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from qemu_sdei.errors import ExpectationError, ProtocolError, UsageError
from qemu_sdei.guest.ras_expecting import Trace
from qemu_sdei.ras.block import parse_block
from qemu_sdei.ras.kinds import Arm, Memory, Pcie
from tests.library.ras_fakes import STACK_PAGE, FakeGuest, source

SIGNAL = "signal_generate: sig=7 errno=0 code=4 comm=sh pid=124 grp=0 res=0"
FAILED = "memory_failure_event: pfn 0x41e78: recovery action for dirty LRU page: Recovered"
ARM = "arm_event: cpu: 0; error: 1; affinity level: 2; MPIDR: 0000000080000000; MIDR: 00000000410fd083; running: 1"


def test_an_error_in_a_page_of_a_process_is_at_its_physical_address() -> None:
    guest = FakeGuest()
    report = guest.ras().inject(Memory(), severity="recoverable", pid=123)
    ((name, data, how),) = guest.reports
    assert (name, how["wait"], how["force"], how["raw"]) == ("ghes", True, False, False)
    (entry,) = parse_block(data).entries
    assert entry.section["physical_address"] == 0x41E78000
    assert report.page is not None
    assert (report.page.virtual, report.page.frame, report.page.what) == (STACK_PAGE, 0x41E78, "sh, [stack]")
    assert (report.outcome, report.state, report.complete_ns) == ("completed", "free", 800_000)


def test_the_page_that_is_meant_may_be_any_other() -> None:
    guest = FakeGuest(pages={0xFFFFA10BA000: 0x55555})
    page = guest.ras().page(123, 0xFFFFA10BA0F0)
    assert page.physical == 0x555550F0
    # Nothing of its stack is there, so it is found by itself as well.
    assert guest.ras().page(123).frame == 0x55555


def test_the_page_of_one_that_computes_is_that_of_its_stack_pointer() -> None:
    """It is not the deepest one of its stack, which it may never touch again."""
    deepest = {STACK_PAGE - 0x1000: 0x11111, STACK_PAGE: 0x22222, STACK_PAGE + 0x1000: 0x33333}
    guest = FakeGuest(pages=deepest, call=f"-1 {STACK_PAGE + 0xFE0:#x} 0x44bd4c")
    assert guest.ras().page(123).frame == 0x22222
    assert "kill -STOP 123" in guest.commands[0]
    guest.ras().page(123, STACK_PAGE)
    assert "kill" not in guest.commands[-2], "one whose page is known goes on"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"pid": 99}, "there is no process 99"),
        ({"pid": 123, "virtual": 0x1000}, "has nothing mapped at 0x1000"),
        ({"pid": 123, "virtual": 0x3D190000}, "has no page"),
        ({"address": 0x1000}, "address 0x1000 is no RAM of the guest, which has 0x40000000 to 0x7fbfffff"),
        ({"severity": "bad"}, "'bad' is no severity"),
        ({"source": "other"}, "there is no error source 'other': this guest has ghes"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(how: dict[str, Any], words: str) -> None:
    guest = FakeGuest()
    with pytest.raises(UsageError, match=re.escape(words)):
        guest.ras().inject(Memory(), **how)
    assert not guest.reports


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"ready": False, "reason": "event 0x324 is not registered on PE 0"}, "event 0x324 is not registered"),
        ({"block": 64}, "the record has 172 bytes, and the block of error source 'ghes' has 64"),
        ({"state": "unread"}, "has a report that the guest has not read yet"),
        ({"state": "unacknowledged"}, "has not acknowledged yet"),
    ],
)
def test_a_source_that_cannot_report_says_why(state: dict[str, Any], words: str) -> None:
    guest = FakeGuest(sources=[source(**state)])
    with pytest.raises(UsageError, match=re.escape(words)):
        guest.ras().inject(Memory())
    assert not guest.reports


def test_a_guest_without_sources_says_how_to_get_one() -> None:
    with pytest.raises(UsageError, match="has no error sources: start it with --ras"):
        FakeGuest(sources=[]).ras().inject(Memory())


def test_a_backend_that_answers_nonsense_is_not_believed() -> None:
    with pytest.raises(ProtocolError):
        FakeGuest(sources=[{"name": "x"}]).ras().sources()


def test_what_else_is_asked_of_a_backend() -> None:
    guest = FakeGuest()
    found = guest.ras().host_memory_error(0x4A00_0123, vcpu=1)
    assert (found.page, found.source, found.vcpu) == (0x4A00_0000, "ghes", None)
    taken = guest.ras().external_abort(1, fetch=True)
    assert (taken.vcpu, taken.pc, taken.el) == (1, 0x1234, 0)
    assert guest.asked == [
        ("memory_error", 0x4A00_0123, {"source": None, "vcpu": 1}),
        ("abort", 1, {"address": None, "fetch": True, "kernel": False, "limit": 10}),
    ]


def test_sections_that_contradict_their_severity_need_force() -> None:
    guest = FakeGuest()
    wrong = Memory(memory_error_type="Scrub Corrected Error")
    with pytest.raises(UsageError, match="its severity is fatal, and Memory Error Type is 'Scrub Corrected Error'"):
        guest.ras().inject(wrong, severity="fatal")
    guest.ras().inject(wrong, severity="fatal", force=True)
    assert guest.reports[0][2]["force"]
    assert not guest.reports[0][2]["wait"], "a kernel that panics acknowledges nothing"


def test_an_address_wants_a_section_that_has_one() -> None:
    with pytest.raises(UsageError, match="no section says a physical address: pcie"):
        FakeGuest().ras().inject(Pcie(), address=0x4000_0000)


def test_the_source_that_is_ready_is_taken() -> None:
    guest = FakeGuest(sources=[source("a", ready=False, reason="no"), source("b")])
    assert guest.ras().inject(Arm()).source == "b"


def test_what_was_expected_and_came() -> None:
    guest = FakeGuest(log=["Memory failure: 0x41e78: recovery action"], trace=[SIGNAL, FAILED, ARM], corrupted=4)
    guest.poisoned.add(0x41E78)
    report = guest.ras().inject(Memory(), severity="recoverable", pid=123)
    report.expect(log="Memory failure", trace="memory_failure_event:pfn=0x41e78", sigbus=(124, 4), offline=True)
    for words in ("arm_event", "arm_event:error=1", "arm_event:MPIDR=0x80000000", "ras:arm_event:affinity level=2"):
        report.expect(trace=words)
    assert report.observed().corrupted == 4


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            {"sigbus": (123, 4)},
            "no SIGBUS with si_code 4 (BUS_MCEERR_AR) came to process 123: what came was SIGBUS",
        ),
        ({"sigbus": (124, 5)}, "no SIGBUS with si_code 5 (BUS_MCEERR_AO)"),
        ({"trace": "arm_event:error=2"}, "no trace event arm_event has error=2; it said"),
        ({"trace": "arm_event:error=11"}, "no trace event arm_event has error=11"),
        ({"trace": "aer_event"}, "no trace event aer_event came: there were arm_event, memory_failure_event"),
        ({"log": "panic"}, "no line of the kernel's log matches 'panic'"),
        ({"offline": 0x41E79}, "page 0x41e79 is in use as before"),
        ({"panic": True}, "the kernel did not panic"),
    ],
)
def test_what_did_not_come_is_said_with_what_came_in_place_of_it(wanted: dict[str, Any], words: str) -> None:
    guest = FakeGuest(log=["Memory failure: 0x41e78: x"], trace=[SIGNAL, FAILED, ARM])
    report = guest.ras().inject(Memory(), severity="recoverable", pid=123)
    with pytest.raises(ExpectationError) as error:
        report.expect(**wanted, timeout=0.01)
    assert words in str(error.value)
    assert "within 0.01 s" in str(error.value)


def test_a_panic_is_seen_on_the_console() -> None:
    guest = FakeGuest(printed="[   12.3] Kernel panic - not syncing: GHES: Fatal hardware error\nmore\n")
    report = guest.ras().inject(Memory(), severity="fatal")
    report.expect(panic="Fatal hardware error")
    with pytest.raises(ExpectationError, match="the kernel panicked: GHES"):
        report.expect(log="not there", timeout=60)


def test_what_this_guest_cannot_tell_is_refused() -> None:
    report = FakeGuest(tracefs=False).ras().inject(Memory())
    with pytest.raises(UsageError, match="the guest's kernel has no tracefs"):
        report.expect(trace="arm_event")
    report = FakeGuest().ras(helper=False).inject(Memory())
    with pytest.raises(UsageError, match="cannot be looked for: the guest has no helper"):
        report.expect(sigbus=(1, 4))
    with pytest.raises(UsageError, match="pages of processes cannot be found"):
        FakeGuest().ras(helper=False).inject(Memory(), pid=1)


@pytest.mark.parametrize("text", ["", ":x=1", "arm_event:", "arm_event:x", "a b"])
def test_what_is_no_trace_event_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a trace event"):
        Trace.of(text)


def test_an_abort_is_about_the_address_of_the_process() -> None:
    guest = FakeGuest(sources=[source(notify="sea", event=None)])
    guest.ras().inject(Memory(), severity="recoverable", pid=123)
    assert guest.reports[0][2]["address"] == STACK_PAGE
    guest = FakeGuest()
    guest.ras().inject(Memory(), severity="recoverable", pid=123)
    assert guest.reports[0][2]["address"] is None, "an event has none"


def test_nothing_is_left_in_the_guest() -> None:
    guest = FakeGuest()
    with guest.ras() as ras:
        ras.inject(Memory())
    made = [re.search(r"instances/(qemu-sdei-\w+)", command) for command in guest.commands]
    assert f"rmdir /sys/kernel/tracing/instances/{next(match[1] for match in made if match)}" in guest.commands[-1]
