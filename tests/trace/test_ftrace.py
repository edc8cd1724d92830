"""The guest's ftrace on the axis of our trace: lines fall where they happened, no further off than is said."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.errors import UsageError
from qemu_sdei.trace.align import Alignment, aligned
from qemu_sdei.trace.columns import Columns
from qemu_sdei.trace.ftrace import Ftrace, merged, open_with_ftrace
from qemu_sdei.trace.ftrace_text import parsed
from qemu_sdei.trace.guest_clock import AFTER, BEFORE, MARKS, Calls
from tests.examples import examples
from tests.trace.records import META
from tests.trace.simulated_clocks import HZ, TICK_NS, Exchange, Machine
from tests.trace.test_record_schema import strictly

HEADER = """\
# tracer: nop
#
# entries-in-buffer/entries-written: 5/5   #P:2
#
#                                _-----=> irqs-off/BH-disabled
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""
HOUR = 3_600_000_000_000
CALL = Exchange(vcpu=0, runs_ns=200_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=0)


class Guest:
    """A guest whose kernel began 2 s after its counter: `local` clock = counter - 2 s."""

    def __init__(self, kernel_began_ns: int = 2_000_000_000) -> None:
        self.machine = Machine(HOUR, 200_000_000)
        self.lines: list[str] = []
        self._began = kernel_began_ns
        self._true: dict[str, int] = {}
        for _ in range(10):  # as at each boot
            self.machine.do(Exchange(vcpu=0, runs_ns=4_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=0))

    def local(self, host_ns: int) -> int:
        return self.machine.virtual(host_ns) // TICK_NS * TICK_NS - self._began

    def line(self, text: str, host_ns: int, *, cpu: int = 0, task: str = "sh-75") -> None:
        micros = (self.local(host_ns) + 500) // 1000
        clock = f"{micros // 1_000_000}.{micros % 1_000_000:06d}"
        self.lines.append(f"{task:>20}      [{cpu:03d}] d..1.  {clock}: {text}\n")
        self._true[text] = host_ns

    def read_counter(self, host_ns: int, before: int = 900, behind: int = 1_500, *, cpu: int = 0) -> None:
        """The kernel reads its counter between two probes."""
        counter = self.machine.virtual(host_ns) // TICK_NS
        self.line(f"{BEFORE}: (arch_counter_read+0x0/0x30)", host_ns - before, cpu=cpu)
        after = f"{AFTER}: (ktime_get+0x48/0xe0 <- arch_counter_read) counter={counter:#x}"
        self.line(after, host_ns + behind, cpu=cpu)

    def read(self, path: Path) -> Ftrace:
        path.write_text(HEADER + "".join(self.lines))
        alignment, calls = Alignment(HZ), Calls()
        for seen in self.machine.records:
            alignment.learn(seen.record)
            calls.learn(seen.record)
        return Ftrace(path, alignment, calls)

    def check(self, path: Path, most_ns: int = 1 << 62) -> list[dict[str, Any]]:
        """Its records; each is no further off than it says, and says no more than `most_ns`."""
        records = list(self.read(path).records())
        for record in records:
            true = self._true[f"{record['event']}: {record['text']}"]
            assert abs(record["at_ns"] - true) <= record["at_error_ns"] <= most_ns
        return records


def quiet(calls: int = 20) -> Guest:
    guest = Guest()
    for _ in range(calls):
        guest.machine.do(CALL)
    return guest


def test_probes_tie_lines_to_the_trace(tmp_path: Path) -> None:
    guest = quiet()
    now = guest.machine.now
    guest.line("sched_switch: prev_comm=sh", now - 2_000_000)
    for n in range(10):
        guest.read_counter(now - 1_000_000 + n * 50_000)
    guest.line("irq_handler_entry: irq=11 name=arch_timer", now - 100_000, cpu=1)
    records = guest.check(tmp_path / "ftrace", 45_000)
    assert [(r["event"], r["vcpu"]) for r in records] == [("sched_switch", 0), ("irq_handler_entry", 1)]
    first = records[0]
    assert (first["task"], first["pid"], first["flags"], first["n"]) == ("sh", 75, "d..1.", 8)


def test_markers_around_a_call_do_it_too(tmp_path: Path) -> None:
    guest = Guest()
    for number in range(8):
        event = MARKS[number]
        guest.line(f"tracing_mark_write: qemu-sdei before event={event:#x}", guest.machine.now + 20_000)
        guest.machine.do(CALL)
        guest.machine.records[-1].record.update(function="SDEI_EVENT_STATUS", args={"event": event})
        guest.line(f"tracing_mark_write: qemu-sdei after event={event:#x}", guest.machine.now + 60_000)
    guest.line("sdei_test: here", guest.machine.now)
    records = guest.check(tmp_path / "ftrace", 250_000)
    assert len(records) == 17


def test_a_stop_of_the_virtual_machine_is_no_error(tmp_path: Path) -> None:
    """The guest's clock stands still as well."""
    guest = quiet()
    guest.read_counter(guest.machine.now - 500_000)
    guest.line("before: x", guest.machine.now - 300_000)
    guest.machine.stop(7_000_000_000)
    for _ in range(10):
        guest.machine.do(CALL)
    guest.read_counter(guest.machine.now - 500_000)
    guest.line("behind: x", guest.machine.now - 150_000)
    before, behind = guest.check(tmp_path / "ftrace")
    assert behind["at_ns"] - before["at_ns"] > 7_000_000_000
    assert behind["at_error_ns"] < 250_000  # what bounds it from below is the quickest exchange since the stop


def test_a_guest_that_was_suspended_is_aligned_on_both_sides(tmp_path: Path) -> None:
    """Linux stops its trace clock in a suspend, the counter goes on."""
    guest = quiet()
    guest.read_counter(guest.machine.now - 500_000)
    guest.line("before: x", guest.machine.now - 400_000)
    guest.read_counter(guest.machine.now - 300_000)
    guest.line("about: it", guest.machine.now - 250_000)
    guest._began += 30_000_000_000
    guest.machine.do(Exchange(vcpu=0, runs_ns=31_000_000_000, late_ns=6_000, holds_ns=9_000, stamped=True, stop_ns=0))
    for _ in range(10):
        guest.machine.do(CALL)
    guest.read_counter(guest.machine.now - 500_000)
    guest.line("behind: x", guest.machine.now - 300_000)
    before, about, behind = guest.check(tmp_path / "ftrace")
    assert max(before["at_error_ns"], behind["at_error_ns"]) < 60_000
    assert about["at_error_ns"] > 10_000_000_000  # nothing says on which side it is


@given(st.integers(0, 2**32), st.integers(1, 40))
@settings(max_examples=examples(60))
def test_the_error_holds_however_late_probes_are(
    tmp_path_factory: pytest.TempPathFactory, seed: int, reads: int
) -> None:
    chance = random.Random(seed)
    guest = Guest(kernel_began_ns=chance.randrange(3_000_000_000))
    begin = guest.machine.now
    for _ in range(20):
        guest.machine.do(CALL)
    end = guest.machine.now
    for n in range(reads):
        at = begin + (end - begin) * (n + 1) // (reads + 1)
        guest.read_counter(at, chance.randrange(50_000), chance.randrange(2_000_000), cpu=chance.randrange(2))
    for n in range(10):
        guest.line(f"event{n}: x", begin + 300_000 + chance.randrange(end - begin - 300_000), cpu=chance.randrange(2))
    guest.check(tmp_path_factory.mktemp("ftrace") / "trace")


@pytest.mark.parametrize(
    ("text", "words", "guest_ns", "event", "rest"),
    [
        (
            "          <idle>-0       [001] d.h2.     5.123456: irq: x=1",
            "<idle> 0 1 d.h2.",
            5_123_456_000,
            "irq",
            "x=1",
        ),
        ("     kworker/0:1-12      [000]     5.000001: wq: a", "kworker/0:1 12 0 ", 5_000_001_000, "wq", "a"),
        ("  a b-7   (    12) [010] .....  5.000001: f <-g", "a b 7 10 .....", 5_000_001_000, "function", "f <-g"),
        ("  a b-7   (-------) [010] ....  5.000001: w: x", "a b 7 10 ....", 5_000_001_000, "w", "x"),
        ("  sh-75 [001]   12.000000123: switch:         p=1", "sh 75 1 ", 12_000_000_123, "switch", "p=1"),
        ("  <...>-9 [000] ..... 4711: f <-x", "<...> 9 0 .....", 4711_000_000_000, "function", "f <-x"),
        ("  sh-75 [001]   12.000001: print: ", "sh 75 1 ", 12_000_001_000, "print", ""),
    ],
)
def test_lines_of_tracefs_and_of_trace_cmd_are_understood(
    text: str, words: str, guest_ns: int, event: str, rest: str
) -> None:
    line = parsed(1, text.encode())
    assert line is not None
    assert f"{line.task.decode()} {line.pid} {line.vcpu} {line.flags.decode()}" == words
    assert (line.guest_ns, line.event.decode(), line.text.strip().decode()) == (guest_ns, event, rest)


def test_a_function_tracer_s_line_is_a_function(tmp_path: Path) -> None:
    guest = quiet()
    guest.read_counter(guest.machine.now - 500_000)
    guest.lines.append("  sh-75  [000] d..1.  3.000000: sdei_event_handler <-__sdei_handler\n")
    (record,) = guest.read(tmp_path / "ftrace").records()
    assert (record["event"], record["text"]) == ("function", "sdei_event_handler <-__sdei_handler")


def test_what_the_guest_s_buffer_has_lost_is_said(tmp_path: Path) -> None:
    guest = quiet()
    guest.read_counter(guest.machine.now - 500_000)
    guest.line("a: x", guest.machine.now)
    guest.lines.append("CPU:1 [LOST 4321 EVENTS]\n")
    first, lost = guest.read(tmp_path / "ftrace").records()
    assert (lost["type"], lost["vcpu"], lost["count"], lost["at_ns"]) == ("dropped", 1, 4321, first["at_ns"])


def test_a_file_that_is_damaged_keeps_its_good_lines(tmp_path: Path) -> None:
    """Binary noise in the middle, a line of megabytes, an end in the middle of a line."""
    guest = quiet()
    guest.read_counter(guest.machine.now - 500_000)
    guest.line("a: x", guest.machine.now)
    path = tmp_path / "ftrace"
    guest.read(path)
    good = path.read_bytes()
    noise = random.Random(1).randbytes(100_000) + b"\n" + b"[" * 3_000_000 + b"\n"
    path.write_bytes(good[: len(HEADER)] + noise + good[len(HEADER) :] + b"   sh-75      [000] d..1.  5")
    alignment = Alignment(HZ)
    for seen in guest.machine.records:
        alignment.learn(seen.record)
    damaged = Ftrace(path, alignment, Calls())
    assert [record["event"] for record in damaged.records()] == ["a"]
    assert damaged.lines == 3
    assert damaged.skipped > 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no line of ftrace"),
        (b"\x00\xff" * 5000, "has no line of ftrace"),
        (HEADER.encode(), "has no line of ftrace"),
        (b"  sh-75 [000] ..... 5.000001: a: x\n", "nothing that ties it"),
        (b"  sh-75 [000] ..... 4711: a: x\n", "echo local >"),
    ],
)
def test_what_cannot_be_placed_is_one_line_that_says_what_to_do(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "ftrace"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        Ftrace(path, Alignment(HZ), Calls())
    assert "\n" not in str(error.value)


def test_a_trace_without_counters_has_no_place_for_it(tmp_path: Path) -> None:
    guest = Guest()
    guest.machine.records = []
    guest.read_counter(guest.machine.now)
    guest.line("a: x", guest.machine.now)
    with pytest.raises(UsageError, match="no counters"):
        list(guest.read(tmp_path / "ftrace").records())


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_a_file_that_is_none_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ftrace"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(UsageError, match="cannot be read"):
        Ftrace(path, Alignment(HZ), Calls())


@given(st.binary(max_size=200))
def test_no_line_is_too_strange(text: bytes) -> None:
    line = parsed(1, b"  sh-75 [000] d..1. 5.000001: " + text)
    assert line is None or line.guest_ns == 5_000_001_000


def test_a_trace_is_opened_with_it(tmp_path: Path) -> None:
    """Lines of the guest stand between our records, behind a note that says how good they are."""
    guest = quiet()
    for n in range(5):
        guest.read_counter(guest.machine.now - 1_000_000 - n * 30_000)
    guest.line("a: x", guest.machine.records[15].true_ns + 100_000)
    guest.lines.append("half a li")
    text = tmp_path / "ftrace"
    text.write_text(HEADER + "".join(guest.lines))
    trace = tmp_path / "trace.jsonl"
    ours = aligned((dict(seen.record) for seen in guest.machine.records), HZ)
    trace.write_text("".join(json.dumps(record) + "\n" for record in (META, *ours)))
    with open_with_ftrace(trace, text) as reading:
        assert reading.meta.guest == "demo"
        records = list(reading.records())
    kinds = [record["type"] for record in records]
    assert kinds == ["call"] * 16 + ["note", "ftrace"] + ["call"] * 14
    note = records[16]
    assert (note["name"], note["lines"], note["not_understood"]) == ("ftrace", 11, 1)
    assert 0 < note["clock_error_ns"] < 3_000
    lines = [Columns().line(record) for record in records]
    assert lines[17].endswith("ftrace:      sh-75 d..1. a: x")
    strictly({**note, "type": "note"})
    for record in records[17:18]:
        strictly(record)


def test_a_trace_of_somebody_s_with_strange_counters_is_no_traceback(tmp_path: Path) -> None:
    guest = quiet(3)
    guest.read_counter(guest.machine.now - 100_000)
    guest.line("a: x", guest.machine.now - 50_000)
    text, trace = tmp_path / "ftrace", tmp_path / "trace.jsonl"
    text.write_text("".join(guest.lines))
    calls = [{**seen.record, "at_ns": 1} for seen in guest.machine.records]
    strange = [{**calls[0], "counter": value, "args": value} for value in ("5", [1], -7, 1 << 80, True)]
    trace.write_text("".join(json.dumps(record) + "\n" for record in (META, *calls, *strange)))
    with open_with_ftrace(trace, text) as reading:
        assert "ftrace" in {record["type"] for record in reading.records()}


def test_two_traces_are_put_together_by_their_times() -> None:
    ours = [{"at_ns": 1}, {"at_ns": 5}, {"at_ns": 9}]
    theirs = [{"at_ns": 4}, {"at_ns": 6}]
    assert [record["at_ns"] for record in merged(ours, theirs)] == [1, 4, 5, 6, 9]
