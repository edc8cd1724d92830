"""What the conformance guest prints becomes data, whatever it prints."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.conformance.listing import LAST
from qemu_sdei.conformance.tap import (
    Begin,
    Failed,
    Item,
    Kind,
    Mark,
    Outcome,
    Parser,
    Result,
    Text,
    Trigger,
    TriggerAt,
    TriggerMark,
    write_tap,
)

OUTPUT = """\
# firmware: SDEI 1.1
TAP version 13
1..97
#! run 12 - REGISTER works # source ACS3, TFTF
# 12 not with a bound PPI: FEATURES reports no slots
ok 12 - REGISTER works # source ACS3, TFTF
#! run 13 - REGISTER twice # source TFTF
#! trigger 0x100 3
not ok 13 - REGISTER twice # source TFTF
  ---
  call: EVENT_REGISTER(0x0, 0x40204000)
  expected: -3 (DENIED)
  got: 0 (SUCCESS)
  cpu: 0
  where: "registration.c:17"
  calls:
    - "CPU 0: EVENT_STATUS(0x0) = 0"
    - "CPU 1: SDEI_VERSION() = 1"
  ...
#! failed 13
ok 63 - BIND # SKIP no slots (source ACS4)
ok 64 - BIND more # SKIP not selected
FAIL: CPU 0: exception at vector 4: ESR 0x96000010
"""


def parse(text: str, size: int = 1 << 20) -> list[Item]:
    parser = Parser()
    items = [item for at in range(0, len(text), size) for item in parser.feed(text[at : at + size])]
    return items + list(parser.finish())


def test_every_kind_of_line() -> None:
    comment, begin_12, good, begin_13, trigger, bad, failed, skipped, not_selected, crash = parse(OUTPUT)
    assert comment == Text("# firmware: SDEI 1.1")
    assert begin_12 == Begin(12, "REGISTER works", "ACS3, TFTF")
    assert isinstance(good, Result)
    assert (good.number, good.outcome, good.source) == (12, Outcome.PASS, "ACS3, TFTF")
    assert good.notes == ("not with a bound PPI: FEATURES reports no slots",)
    assert isinstance(begin_13, Begin)
    assert trigger == Trigger(0x100, 3)
    assert isinstance(bad, Result)
    assert (bad.number, bad.name, bad.source, bad.outcome) == (13, "REGISTER twice", "TFTF", Outcome.FAIL)
    assert bad.reason == "EVENT_REGISTER(0x0, 0x40204000): expected -3 (DENIED), got 0 (SUCCESS)"
    assert bad.details["where"] == "registration.c:17"
    assert bad.details["calls"] == ("CPU 0: EVENT_STATUS(0x0) = 0", "CPU 1: SDEI_VERSION() = 1")
    assert failed == Failed(13)
    assert skipped == Result(63, "BIND", "ACS4", Outcome.SKIP, "no slots")
    assert not_selected == Result(64, "BIND more", "", Outcome.SKIP, "not selected")
    assert isinstance(crash, Text)
    assert crash.fatal


@given(st.integers(1, 50))
def test_pieces_of_any_size(size: int) -> None:
    assert parse(OUTPUT.replace("\n", "\r\n"), size) == parse(OUTPUT)


def test_a_failure_that_is_cut_off_is_one() -> None:
    for end in range(OUTPUT.index("not ok 13") + len("not ok 13 - x"), len(OUTPUT)):
        assert any(isinstance(i, Result) and i.outcome is Outcome.FAIL for i in parse(OUTPUT[:end]))


LINES = st.sampled_from(
    [*OUTPUT.splitlines(), "  calls:", "    - x", "  ---", "  ...", "ok 0 - x", "ok 300 - x", "#! run", ""]
)


@given(st.lists(LINES | st.text(), max_size=60))
def test_anything_is_survived(lines: list[str]) -> None:
    for item in parse("\n".join(lines)):
        if isinstance(item, Result):
            assert 1 <= item.number <= 299


def test_a_line_without_end_is_not_kept() -> None:
    parser = Parser()
    for _ in range(100):
        assert not list(parser.feed("x" * 10_000))
    assert len(parser._buffer) <= 4096


def test_written_tap_is_complete_and_read_back() -> None:
    results = [item for item in parse(OUTPUT) if isinstance(item, Result) and item.reason != "not selected"]
    text = write_tap(results)
    points = [line for line in text.splitlines() if line.startswith(("ok ", "not ok "))]
    assert [int(line.removeprefix("not ").split()[1]) for line in points] == list(range(1, LAST + 1))
    assert points[12] == "not ok 13 - REGISTER twice # source TFTF"
    again = {item.number: item for item in parse(text) if isinstance(item, Result)}
    for result in results:
        assert (again[result.number].outcome, again[result.number].source) == (result.outcome, result.source)
    assert again[13].details["expected"] == "-3 (DENIED)"


def test_requests_of_the_host() -> None:
    text = "#! kind 13 2\n#! trigger-at 0x100 1 2 0x40200000 0x40200008\n#! trigger-mark 256 0 7\n#! mark 7\n"
    kinds = [Kind(13, 2), TriggerAt(0x100, 1, 2, 0x40200000, 0x40200008), TriggerMark(256, 0, 7), Mark(7)]
    assert parse(text) == kinds
    for odd in ("#! kind 13", "#! mark", "#! trigger-at 0x100 1 2 0x40200000", "#! mark x", "#! mark 1 2"):
        assert parse(odd) == [Text(odd)]


def test_own_scenarios_are_in_the_plan() -> None:
    text = write_tap([Result(203, "mine", "J", Outcome.PASS)])
    assert text.startswith("TAP version 13\n1..203\n")
    assert text.endswith("ok 203 - mine # source J\n")
