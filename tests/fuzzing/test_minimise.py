"""The simplest case that shows the same."""

from __future__ import annotations

from qemu_sdei.fuzzing.minimise import minimised
from qemu_sdei.ras.block import block, parse_block
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.mutate import Case
from tests.ras.samples import SAMPLES

WHOLE = Case(
    block([entry(SAMPLES["memory"]), entry(SAMPLES["arm"]), entry(SAMPLES["pcie"])]).pack(),
    ("entry[0].revision=overflow", "section[1].section_length=+1", "section[2].port_type=+1", "data_length=+1"),
)


def test_edits_and_entries_that_do_nothing_are_left_out() -> None:
    def is_same(each: Case) -> bool:
        return any(edit.endswith("section_length=+1") for edit in each.edits)

    found, tried = minimised(WHOLE, is_same)
    assert found.edits == ("section[0].section_length=+1",)
    assert [each.section.kind.name for each in parse_block(found.block).entries] == ["arm"]
    assert tried < 12


def test_what_needs_all_stays() -> None:
    found, tried = minimised(WHOLE, lambda each: False)
    assert found == WHOLE
    assert tried == len(WHOLE.edits) + 3


def test_what_needs_no_edit() -> None:
    found, _ = minimised(WHOLE, lambda each: True)
    assert (found.edits, len(parse_block(found.block).entries)) == ((), 1)


def test_tries_have_a_limit() -> None:
    tried: list[Case] = []

    def is_same(each: Case) -> bool:
        tried.append(each)
        return False

    assert minimised(WHOLE, is_same, tries=2) == (WHOLE, 2)
    assert len(tried) == 2


def test_an_edit_that_changes_nothing_needs_no_guest() -> None:
    same = Case(WHOLE.block, ("entry[0].error_severity=2", "entry[1].error_severity=corrected"))
    assert same.data == same.block
    found, tried = minimised(same, lambda each: False)
    assert found.edits == ()
    assert tried == 3, "the entries alone were tried"
