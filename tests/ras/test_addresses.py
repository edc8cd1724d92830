"""Where an error is, and severities that a section denies."""

from __future__ import annotations

import pytest

from qemu_sdei.errors import CperError
from qemu_sdei.ras import kinds
from qemu_sdei.ras.addresses import addressed, addresses, has_place
from qemu_sdei.ras.contradictions import contradictions
from qemu_sdei.ras.entry import entry

INFORMATION = {"type": "Cache Error"}


@pytest.mark.parametrize(
    "section",
    [kinds.Memory(), kinds.Memory2(), kinds.Processor(), kinds.Arm(error_information=[INFORMATION, INFORMATION])],
    ids=lambda section: section.kind.name,
)
def test_an_address_is_put_where_the_section_has_one(section: kinds.Section) -> None:
    assert has_place(section)
    assert addresses(section) == []
    placed = addressed(section, 0x41E78000)
    assert set(addresses(placed)) == {0x41E78000}
    again = section.kind.parse(placed.pack())
    assert addresses(again) == addresses(placed), "it is valid in the bytes too"
    assert len(placed.pack()) == len(section.pack())


def test_what_was_said_before_stays_valid() -> None:
    placed = addressed(kinds.Memory(node=3), 0x1000)
    assert placed.body.validation_bits == 1 << 3 | 1 << 1


def test_sections_without_a_place_refuse_one() -> None:
    with pytest.raises(CperError, match="'pcie' says no physical address"):
        addressed(kinds.Pcie(), 1)
    with pytest.raises(CperError, match="needs an error information"):
        addressed(kinds.Arm(), 1)


@pytest.mark.parametrize(
    ("section", "severity", "words"),
    [
        (kinds.Memory(memory_error_type="Scrub Corrected Error"), "recoverable", "Scrub Corrected Error"),
        (kinds.Memory(memory_error_type="Scrub Uncorrected Error"), "corrected", "Scrub Uncorrected Error"),
        (kinds.Memory2(status="Uncorrected"), "corrected", "Status is 'Uncorrected'"),
        (kinds.Processor(flags={"corrected": 1}), "fatal", "Flags says 'Corrected'"),
        (
            kinds.Arm(error_information=[{**INFORMATION, "error_information": {"corrected": 1}}]),
            "recoverable",
            "Error Information says 'Corrected'",
        ),
    ],
)
def test_a_severity_that_the_section_denies_is_found(section: kinds.Section, severity: str, words: str) -> None:
    (found,) = contradictions(entry(section, severity))
    assert words in found
    other = "corrected" if severity != "corrected" else "recoverable"
    assert not list(contradictions(entry(section, other)))
