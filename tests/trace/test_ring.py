"""The trace ring: what a backend keeps of a guest, and what other processes read of it."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.sdei.constants import Function
from qemu_sdei.sdei.transitions import ROWS, Action
from qemu_sdei.trace.arguments import is_refusal, result_name
from qemu_sdei.trace.decode import Decoder, clause_of
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.trace.reading import open_trace
from qemu_sdei.trace.ring import Ring
from qemu_sdei.trace.ring_reader import RingReader
from qemu_sdei.trace.slots import CAUSES, MAX_TEXT, SLOT_WORDS, SLOTS_OFFSET, Header, Type, file_size
from qemu_sdei.trace.trace_file import Recorder
from tests.backend.simulated import SimulatedGuest, records, serve

META = TraceMeta(guest="g", vcpus=2, slots=64).document()


def made(path: Path, slots: int = 64) -> Ring:
    ticks = itertools.count(1)
    ring = Ring(path, lambda: next(ticks), slots)
    ring.describe(META)
    return ring


def noted(ring: Ring, count: int, first: int = 0) -> None:
    for n in range(first, first + count):
        ring.text("reject", n & 1, {"why": f"number {n}"})
    ring.commit()


def called(guest: SimulatedGuest, *call: int) -> None:
    server = guest.server()
    guest.smc(0, *call)
    serve(server)
    guest.take(0)


# ---- what is in it ---------------------------------------------------------------------------------------------------


def test_each_call_with_names_arguments_result_and_what_follows(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    for call in (
        (Function.EVENT_REGISTER, 0, 0x4300_0000, 0xAB, 0, 0),
        (Function.EVENT_ENABLE, 0x999),
        (Function.EVENT_ENABLE, 0),
        (Function.EVENT_SIGNAL, 0, 0),
        (Function.PE_UNMASK,),
        (Function.EVENT_COMPLETE, 0),
        (0xC600_1234, 1, 2),
    ):
        guest.smc(0, *call)
        serve(server)
        guest.take(0)
    found = records(server)
    calls = [record for record in found if record["type"] == "call"]
    assert [(call["function"], call["result_name"], call["then"]) for call in calls] == [
        ("SDEI_EVENT_REGISTER", "SUCCESS", "returns"),
        ("SDEI_EVENT_ENABLE", "INVALID_PARAMETERS", "returns"),
        ("SDEI_EVENT_ENABLE", "SUCCESS", "returns"),
        ("SDEI_EVENT_SIGNAL", "SUCCESS", "returns"),
        ("SDEI_PE_UNMASK", None, "handler"),
        ("SDEI_EVENT_COMPLETE", None, "resumes"),
        ("0xc6001234", "NOT_SUPPORTED", "returns"),
    ]
    assert calls[0]["args"] == {"event": 0, "entry": 0x4300_0000, "argument": 0xAB, "flags": 0, "affinity": 0}
    assert calls[4]["next_pc"] == 0x4300_0000
    assert [calls[-1]["args"][name] for name in ("x1", "x2")] == [1, 2]
    assert [record.get("cause", record["type"]) for record in found[-7:]] == [
        *("call", "undelivered", "call", "DISPATCH", "call", "COMPLETE", "call"),
    ]
    (waits,) = (record for record in found if record["type"] == "undelivered")
    assert (waits["event"], waits["reason"], waits["vcpu"]) == (0, "masked", 0)
    assert "PE 0 is masked" in waits["why"]


@pytest.mark.parametrize("value", [0, 3, 0xFFFF_8000_0812_3456, (1 << 64) - 100, (1 << 64) - 1])
def test_a_value_is_no_refusal_whatever_it_looks_like(value: int) -> None:
    """EVENT_CONTEXT answers a register of what the handler interrupted, such as an address of Linux."""
    signed = value - (1 << 64) if value >> 63 else value
    context = {"result": signed, "result_name": result_name("SDEI_EVENT_CONTEXT", signed)}
    assert not is_refusal(context)
    assert is_refusal({"result": -3, "result_name": result_name("SDEI_EVENT_CONTEXT", -3)})
    assert not is_refusal({"result": -5, "result_name": result_name("SDEI_EVENT_UNREGISTER", -5)}), "it is done, later"


def test_calls_that_always_answer_the_same_are_counted_unless_somebody_wants_each(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)

    def ask(times: int) -> list[dict[str, object]]:
        known = len(records(server))
        for _ in range(times):
            guest.smc(0, Function.VERSION)
            serve(server)
            guest.take(0)
        server.record_each(False)  # as when nobody follows any more: what was counted is told
        server.record_each(True)
        return records(server)[known:]

    server.record_each(True)
    assert [record["type"] for record in ask(3)] == ["call"] * 3
    server.record_each(False)
    (counted,) = ask(5)
    assert (counted["type"], counted["function"], counted["count"]) == ("counted", "SDEI_VERSION", 5)


def test_a_cpu_that_is_sent_off_starts_and_enters_no_handler(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    guest.reset(0)
    serve(server)
    frames = [record for record in records(server) if record["type"] == "frame"]
    assert [(frame["kind"], frame["then"]) for frame in frames] == [("reset", "starts")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{Action(row.action).name}-{row.states[0]}")
def test_each_transition_names_its_rule(row: object) -> None:
    assert all(clause_of(Action(row.action).name, state) == row.source for state in row.states)  # type: ignore[attr-defined]


def test_causes_are_the_state_tables() -> None:
    assert (*(action.name for action in Action), "RESET") == CAUSES


def test_a_long_text_comes_whole_and_one_that_is_too_long_says_so(tmp_path: Path) -> None:
    ring = made(tmp_path / "ring")
    ring.text("reject", 1, {"why": "x" * 700})
    ring.text("reject", None, {"why": "y" * 2 * MAX_TEXT})
    ring.commit()
    with open_trace(tmp_path / "ring") as reading:
        long, cut = reading.records()
    assert (long["type"], long["vcpu"], long["why"]) == ("reject", 1, "x" * 700)
    assert (cut["vcpu"], "why" in cut, len(cut["cut"])) == (None, False, MAX_TEXT // 2)


# ---- read beside the writer, and after its death ---------------------------------------------------------------------


def test_a_reader_that_is_too_slow_is_told_how_much_it_missed(tmp_path: Path) -> None:
    ring = made(tmp_path / "ring")
    noted(ring, 10)
    reader = RingReader(tmp_path / "ring")
    assert (len(reader.take()), reader.missed) == (10, 0)
    noted(ring, 200, 10)
    assert (len(reader.take()), reader.missed) == (63, 137), "a writer may be at the oldest one"
    assert (reader.take(), reader.missed) == ([], 0)
    with open_trace(tmp_path / "ring") as reading:
        first, second, *_ = reading.records()
    assert (first["type"], first["count"]) == ("dropped", 147)
    assert second["why"] == "number 147"


def test_a_record_that_is_being_written_over_is_not_read_as_the_former_one(tmp_path: Path) -> None:
    """The loop writes the number of a call's slot last: until then it is the former record's."""
    ring = made(tmp_path / "ring")
    noted(ring, 64)
    reader = RingReader(tmp_path / "ring")
    ring.begin(0, memoryview(bytes(128)).cast("Q"))
    found = reader.take()
    assert [slot[0] >> 20 for slot in found] == list(range(2, 65))
    assert reader.missed == 1


@pytest.mark.parametrize("kept", [0, 1, 63, 64, 65, 127, 128, 129, 300])
def test_whoever_goes_on_with_a_ring_keeps_what_is_there(kept: int, tmp_path: Path) -> None:
    """Wherever the backend before was: at the ring's end, at a boundary of its parts, amid one."""
    noted(made(tmp_path / "ring", 128), kept)
    ring = made(tmp_path / "ring", 128)
    assert ring.serial == kept
    noted(ring, 40, kept)
    with open_trace(tmp_path / "ring") as reading:
        found = [record["why"] for record in reading.records() if record["type"] == "reject"]
    # Of a full ring the oldest record is not read: a writer could be at its slot.
    assert found == [f"number {n}" for n in range(max(kept + 40 - 127, 0), kept + 40)]


def test_what_the_backend_was_at_when_it_died_is_there(tmp_path: Path) -> None:
    """Also what the header does not count yet."""
    ring = made(tmp_path / "ring")
    noted(ring, 3)
    ring.text("reject", 0, {"why": "the last thing"})
    reader = RingReader(tmp_path / "ring")
    assert len(reader.take()) == 3
    assert len(reader.take(unfinished=True)) == 1
    with open_trace(tmp_path / "ring") as reading:
        *_, last = reading.records()
    assert last["why"] == "the last thing"
    again = Ring(tmp_path / "ring", lambda: 7, 64)
    assert again.serial == 4, "another backend goes on behind it"


def test_a_new_backend_goes_on_in_the_same_ring(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    known = [record["n"] for record in records(server)]
    server = guest.server()
    assert server.recover()
    guest.smc(0, Function.PE_UNMASK)
    serve(server)
    numbers = [record["n"] for record in records(server)]
    assert numbers[: len(known)] == known
    assert numbers == sorted(set(numbers))


# ---- the file of run --trace -----------------------------------------------------------------------------------------


def recorded(tmp_path: Path, count: int = 300) -> Path:
    ring = made(tmp_path / "ring", 1024)
    recorder = Recorder(ring, tmp_path / "out", META, anew=True)
    noted(ring, count)
    recorder.close()
    return tmp_path / "out"


def test_the_file_has_all_of_it_and_so_have_json_lines(tmp_path: Path) -> None:
    with open_trace(recorded(tmp_path)) as reading:
        found = list(reading.records())
        meta = reading.meta.document()
    assert [record["why"] for record in found] == [f"number {n}" for n in range(300)]
    lines = tmp_path / "lines"
    lines.write_text("".join(json.dumps(line) + "\n" for line in (meta, *found)))
    with open_trace(lines) as reading:
        assert (list(reading.records()), reading.meta.document()) == (found, meta)


def test_a_guest_that_goes_on_elsewhere_goes_on_in_its_file(tmp_path: Path) -> None:
    path = recorded(tmp_path, 3)
    ring = made(tmp_path / "other", 1024)
    recorder = Recorder(ring, path, META, anew=False)
    noted(ring, 2, 3)
    recorder.close()
    with open_trace(path) as reading:
        found = list(reading.records())
    assert [(record["n"], record["why"]) for record in found] == [(2 * n + 2, f"number {n}") for n in range(5)]


def test_a_new_run_begins_its_file_anew_and_leaves_other_files_alone(tmp_path: Path) -> None:
    path = recorded(tmp_path, 3)
    ring = made(tmp_path / "other", 1024)
    Recorder(ring, path, META, anew=True).close()
    with open_trace(path) as reading:
        assert list(reading.records()) == []
    other = tmp_path / "thesis.txt"
    other.write_text("years of work")
    with pytest.raises(UsageError, match="would write over a file that is not a trace: choose another name"):
        Recorder(ring, other, META, anew=True)
    assert other.read_text() == "years of work"
    with pytest.raises(UsageError, match="trace /nonexistent/trace cannot be written: No such file"):
        Recorder(ring, Path("/nonexistent/trace"), META, anew=True)


def test_a_file_that_cannot_be_written_ends_and_the_guest_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ring = made(tmp_path / "ring")
    recorder = Recorder(ring, Path("/dev/full"), META, anew=True)
    noted(ring, 200)
    recorder.close()
    err = capfd.readouterr().err
    assert err.count("\n") == 1, "told once"
    assert "the trace /dev/full is not complete, the guest goes on without it: No space left on device" in err


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_a_file_that_is_cut_shows_what_is_whole(tmp_path: Path) -> None:
    path = recorded(tmp_path, 5)
    os.truncate(path, path.stat().st_size - 10)
    with open_trace(path) as reading:
        *found, last = reading.records()
    assert len(found) == 4
    assert (last["type"], last["why"]) == ("dropped", "the file ends in the middle of a record")


@pytest.mark.parametrize("where", ["ring", "out"])
def test_of_another_version_is_said(where: str, tmp_path: Path) -> None:
    recorded(tmp_path)
    with (tmp_path / where).open("r+b") as file:
        file.seek(8)
        file.write(b"\x09")
    with pytest.raises(UsageError, match="of version 9"):
        open_trace(tmp_path / where)


@pytest.mark.parametrize("data", [b"", b"noise" * 100, b"{}\n", b"\x00" * 4096, b'{"type": "trace", "version": 99}\n'])
def test_what_is_no_trace_is_said_in_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        open_trace(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        open_trace(tmp_path)


def test_lines_that_are_no_records_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    good = {"n": 1, "type": "note", "name": "x", "vcpu": None, "time_ns": 1, "at_ns": 1}
    lines = [json.dumps(META), json.dumps(good), "noise", "[" * 100_000, "{}", json.dumps(good), '{"n": 1']
    path.write_text("\n".join(lines))
    with open_trace(path) as reading:
        found = list(reading.records())
    assert [record["type"] for record in found] == ["note", "dropped", "note", "dropped"]
    assert [record["count"] for record in found if record["type"] == "dropped"] == [3, 1]


@pytest.mark.parametrize("seed", range(20))
def test_noise_in_a_ring_harms_nobody(seed: int, tmp_path: Path) -> None:
    """A ring is written by a backend, which a guest may have confused; and a disk may be damaged."""
    import random

    path = tmp_path / "ring"
    noted(made(path), 100)
    source = random.Random(seed)
    with path.open("r+b") as file:
        for _ in range(200):
            file.seek(source.randrange(SLOTS_OFFSET, file_size(64) - 32))
            file.write(source.randbytes(source.randrange(1, 32)))
    with open_trace(path) as reading:
        json.dumps(list(reading.records()))
    decoder = Decoder(4)
    for kind in (*Type, 0, 99, 255):
        words = [source.getrandbits(64) for _ in range(SLOT_WORDS)]
        json.dumps(decoder.records((words[0] & ~0xFF | kind, *words[1:])))


def test_a_ring_that_lies_about_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    noted(made(path), 3)
    with path.open("r+b") as file:
        file.seek(8 * Header.SLOTS)
        file.write((1 << 40).to_bytes(8, "little"))
    with pytest.raises(UsageError, match="is damaged"):
        open_trace(path)
