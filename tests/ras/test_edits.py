"""One value changed, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from qemu_sdei.errors import CperError
from qemu_sdei.ras.checks import structure_faults
from qemu_sdei.ras.edits import changed, places
from qemu_sdei.ras.fields import Kind
from qemu_sdei.ras.kinds import Section
from tests.ras.samples import SAMPLES

every_kind = pytest.mark.parametrize("section", SAMPLES.values(), ids=SAMPLES)


@every_kind
def test_each_number_can_be_changed_alone(section: Section) -> None:
    """The bytes differ in that field only, and it is found by its path."""
    before = section.pack()
    for path, field in places(section.body):
        if field.kind is not Kind.NUMBER:
            continue
        after = changed(section.body, path, (1 << 8 * field.size) - 1).pack()
        assert len(after) == len(before)
        found = [at for at, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        assert not found or found[-1] - found[0] < field.size, path
        assert all(after[at] == 0xFF for at in found)


@every_kind
def test_a_wrong_length_or_count_is_seen(section: Section) -> None:
    for path, field in places(section.body):
        if field.auto is not None:
            wrong = changed(section.body, path, 1)
            faults = [each.field for each in structure_faults(wrong, "")]
            assert path in faults or wrong == section.body, path


def test_places_inside() -> None:
    arm = SAMPLES["arm"].body
    assert changed(arm, "error_information[1].type", "Bus Error")["error_information"][1]["type"] == 8
    assert changed(arm, "error_information[0].error_information.level", 7)["error_information"][0]["type"] == 2
    level = changed(arm, "error_information[0].error_information.level", 0)["error_information"][0]["error_information"]
    assert level >> 22 & 7 == 0
    assert changed(arm, "context_information[3].register_array.sctlr_s", 5) != arm
    assert len(changed(arm, "error_information[3]", {"type": 2})["error_information"]) == 4
    assert changed(arm, "vendor_specific_information", b"")["section_length"] == arm["section_length"]
    pcie = SAMPLES["pcie"].body
    assert (
        changed(pcie, "aer_info.correctable_error_status.bad_tlp", True)["aer_info"]["correctable_error_status"] == 64
    )


REFUSED: dict[str, tuple[str, Any, str]] = {
    "no path": ("a..b", 1, "it is no path"),
    "no such field": ("gremlin", 1, "has no field 'gremlin'"),
    "which one": ("error_information.type", 1, "there are 4 of 'error_information'"),
    "too far": ("error_information[4].type", 1, "there are 4 of 'error_information'"),
    "a number for one": ("midr_el1[0]", 1, "there is one 'midr_el1'"),
    "inside of a number": ("midr_el1.variant", 1, "'midr_el1' has no 'variant'"),
    "no such bits": ("running_state.walking", 1, "there are no bits 'walking'"),
    "too large": ("section_length", 1 << 32, "is too large"),
    "no structure": ("error_information[0]", 5, "it is no Arm Processor Error Information"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be(case: str) -> None:
    path, value, message = REFUSED[case]
    with pytest.raises(CperError, match=message.replace("[", r"\[")) as error:
        changed(SAMPLES["arm"].body, path, value)
    assert error.value.field == path
