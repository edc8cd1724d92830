"""Where transcripts part, what may differ, and what is written of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_sdei.conformance import Outcome, Report, Result
from qemu_sdei.differential import allowed, findings, rules
from qemu_sdei.differential.answers import CHECK, LEFT, Facts, Record, Transcript
from qemu_sdei.differential.hunt import Finding
from qemu_sdei.differential.judge import DEAF, judge
from qemu_sdei.differential.sequence import parse
from qemu_sdei.differential.sides import has_sdei, like, slots
from qemu_sdei.differential.suites import compared
from qemu_sdei.errors import UsageError
from qemu_sdei.vm.options import GuestOptions

M64 = (1 << 64) - 1
INVALID, DENIED = -2 & M64, -3 & M64


def transcript(*records: Record, crash: str = "") -> Transcript:
    return Transcript(records, crash)


def answered(value: int, *, op: int = 0, step: int = 0, cpu: int = 0, changed: int = 0) -> Record:
    return Record(cpu, step, "c", op, value, changed)


@pytest.mark.parametrize(
    ("words", "ours", "theirs", "name"),
    [
        ("0cLc4000020", 1, 2, "configuration"),
        ("0cLc4000030,L0", 0, INVALID, "configuration"),
        ("0cLc4000003,L99,X0", INVALID, -9 & M64, "two-faults"),
        ("0cLc4000021,L0,H2,P0", INVALID, 0, "entry-point"),
        ("0cLc4000021,L0,X0,P0", INVALID, DENIED, "entry-point"),
        ("0cLc4000003,A1,X0,L1", -9 & M64, 0, "entry-point"),
        ("0cLc4000021,L0,H0,P0,L1,A63", 0, INVALID, "affinity"),
        ("0cLc400002d,L100", 0xB000000F, DENIED, "largest-spi"),
        ("0cLc4000028,B0", INVALID, 0, "unbound-number"),
        ("0cLc4000024,L6", 1, 2, "place-of-interruption"),
        ("0cLc4000024,L12", INVALID, DENIED, "bad-index"),
    ],
)
def test_answers_that_may_differ(words: str, ours: int, theirs: int, name: str) -> None:
    verdict = judge(parse(words), transcript(answered(ours)), transcript(answered(theirs)))
    assert verdict.first is None
    assert [one.name for one in verdict.allowed] == [name]


@pytest.mark.parametrize(
    ("words", "ours", "theirs"),
    [
        ("0cLc4000021,L0,H0,P0", 0, INVALID),
        ("0cLc4000021,L0,H2,P0", DENIED, 0),
        ("0cLc4000021,L0,H0,P0", DENIED, INVALID),
        ("0cLc400002d,L1e", 0xB0000000, DENIED),
        ("0cLc4000024,L6", 1, 0),
        ("0cLc4000003,A1,S0", 0, -9 & M64),
        ("0cLc4000028,L0", 0, INVALID),
    ],
)
def test_answers_that_may_not(words: str, ours: int, theirs: int) -> None:
    verdict = judge(parse(words), transcript(answered(ours)), transcript(answered(theirs)))
    assert verdict.first is not None
    assert rules.clause(verdict)


def test_a_bound_number_is_known() -> None:
    script = parse("0cLc400002d,L1e 0cLc4000028,B0")
    ours = transcript(answered(0xB0000000), answered(0, op=1, step=1))
    theirs = transcript(answered(0xB0000000), answered(INVALID, op=1, step=1))
    assert judge(script, ours, theirs).first is not None


def test_an_interrupt_in_a_handler_may_wait_and_at_the_end_may_not() -> None:
    script = parse("0cLc4000020 =0 tL0 e")
    in_handler = Record(0, 0, "i", 1, 1), Record(0, 0, "i", 1, 0)
    verdict = judge(script, transcript(in_handler[0]), transcript(in_handler[1]))
    assert [one.name for one in verdict.allowed] == ["interrupt-in-handler"]
    left = Record(0, LEFT, "i", 0xFF, 1), Record(0, LEFT, "i", 0xFF, 0)
    verdict = judge(script, transcript(left[0]), transcript(left[1]))
    assert verdict.symptom == (DEAF,)
    assert "IHI 0069" in rules.clause(verdict)


def test_behind_what_parts_them_only_the_end_counts() -> None:
    script = parse("0cLc4000021,L0,H2,P0 0cLc4000022,L0")
    ours = [answered(INVALID), answered(DENIED, op=1, step=1), Record(0, CHECK, "p", 0xFF, 1, 1)]
    theirs = [answered(0), answered(0, op=1, step=1), Record(0, CHECK, "p", 0xFF, 1, 1)]
    assert judge(script, transcript(*ours), transcript(*theirs)).first is None
    theirs[2] = Record(0, CHECK, "p", 0xFF, 0, 1)
    first = judge(script, transcript(*ours), transcript(*theirs)).first
    assert first is not None
    assert first.place.step == CHECK


def test_registers_that_a_call_changed() -> None:
    script = parse("0cLc4000022,L0")
    ours = transcript(answered(0))
    assert judge(script, ours, transcript(answered(0, changed=0b1110))).first is None, "x1 to x3 are results"
    verdict = judge(script, ours, transcript(answered(0, changed=1 << 9 | 1 << 31)))
    assert verdict.first is not None
    assert verdict.first.theirs is not None
    assert rules.told(script, verdict.first.theirs) == "SDEI_EVENT_ENABLE: SUCCESS; it changed x9, the flags"
    assert "DEN0028" in rules.clause(verdict)


def test_a_handler_may_begin_a_few_instructions_later() -> None:
    script = parse("0cLc400002f,L0,A0 =0 e")
    handler, call = Record(0, 0, "h", 0xFF, 0, 0x3C5, 0x3C5), answered(0)
    assert judge(script, transcript(handler, call), transcript(call, handler)).first is None


def test_the_end_of_a_side_is_a_difference() -> None:
    script = parse("0cLc4000022,L0 0cLc4000022,L0")
    ours = transcript(answered(DENIED), answered(DENIED, op=1, step=1))
    first = judge(script, ours, transcript(answered(DENIED), crash="gone")).first
    assert first is not None
    assert (first.place.step, first.theirs, first.theirs_end) == (1, None, "gone")
    first = judge(script, ours, Transcript(ours.records, "gone")).first
    assert first is not None
    assert first.theirs_end == "gone"


def test_the_table_says_why() -> None:
    names = [entry.name for entry, _ in allowed.TABLE]
    assert len(set(names)) == len(names)
    assert all(entry.what and entry.why for entry, _ in allowed.TABLE)


# ---- files ----


def finding() -> Finding:
    script = parse("0cLc4000022,L0")
    verdict = judge(script, transcript(answered(DENIED)), transcript(answered(0)))
    return Finding(verdict, rules.clause(verdict), 3, script)


def test_what_is_kept_can_be_replayed(tmp_path: Path) -> None:
    path = findings.keep(tmp_path / "new", 1, finding(), {"smp": 2})
    assert findings.replay(path, 2).words() == "0cLc4000022,L0"
    document = json.loads(path.read_text())
    assert document["first"]["theirs"] == "SDEI_EVENT_ENABLE: SUCCESS"
    assert document["clause"].startswith("DEN0054 5.1.3")
    assert [item.name for item in path.parent.iterdir()] == ["difference-1.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": "qemu-sdei comparison", "version": 9}',
        b'{"format": "qemu-sdei comparison", "version": 1, "sequence": 5}',
        b'{"format": "qemu-sdei comparison", "version": 1, "sequence": "0cL84000008"}',
        b'{"format": "qemu-sdei comparison", "version": 1, "sequence": "7cLc4000020"}',
        b"[" * 100_000,
        b"\xff\x00",
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        findings.replay(path, 2)
    with pytest.raises(UsageError):
        findings.replay(tmp_path, 2)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--keep"):
        findings.keep(tmp_path / "file" / "below", 1, finding(), {})


# ---- sides ----


def test_ours_is_set_up_like_the_other_one() -> None:
    facts = Facts({"version": 1 << 48, "signal": INVALID, "slots": 3 << 16 | 3})
    options = like(GuestOptions(), facts)
    assert (options.sdei_version, options.sdei_vendor, options.sdei_signal) == ("1.0", 0, "invalid")
    assert options.sdei_slots == (3, 3)
    mine = like(replace(GuestOptions(), sdei_signal="pend", sdei_version="1.1"), facts)
    assert (mine.sdei_signal, mine.sdei_version) == ("pend", "1.1"), "what the user has set stays"
    odd = Facts({"version": 7 << 48, "slots": INVALID})
    assert slots(odd) == (0, 0)
    assert like(GuestOptions(), odd).sdei_version is None
    assert has_sdei(facts)
    assert not has_sdei(Facts({"version": M64}))
    assert not has_sdei(Facts({}))


def result(number: int, outcome: Outcome, reason: str = "") -> Result:
    return Result(number, f"scenario {number}", "J", outcome, reason)


def test_two_reports_of_the_suite() -> None:
    passed, failed, skipped = Outcome.PASS, Outcome.FAIL, Outcome.SKIP
    ours = Report(tuple(map(result, (1, 2, 3, 4), (passed, passed, skipped, failed))), (), 0, 1)
    other = (result(1, passed), result(2, failed, "why"), result(3, passed), result(4, failed))
    theirs = Report(other, (), 0, 1)
    both = compared(ours, theirs)
    assert (both.same, both.skipped) == (2, 1)
    assert [(one.number, one.ours, one.theirs, one.reason) for one in both.differ] == [(2, "ok", "not ok", "why")]
