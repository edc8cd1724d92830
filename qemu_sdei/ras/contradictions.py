"""Severities that a section's own fields deny: firmware that says both is wrong, and so is a test that does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qemu_sdei.ras.entry import Entry
from qemu_sdei.ras.fields import Field
from qemu_sdei.ras.severity import NAMES, uncorrected
from qemu_sdei.ras.structure import Structure

_SAYS: Final = {
    ("memory_error_type", "No Error"): False,
    ("memory_error_type", "Scrub Corrected Error"): False,
    ("memory_error_type", "Scrub Uncorrected Error"): True,
    ("status", "Corrected"): False,
    ("status", "Uncorrected"): True,
}
"""Values of fields that say whether the error is uncorrected."""
_CORRECTED: Final = "corrected"
"""A bit that says so, of error informations and flags."""


def contradictions(each: Entry) -> Iterator[str]:
    """What in the section of an entry is not of its severity, one line each."""
    if each.severity not in NAMES:
        return
    bad = uncorrected(each.severity)
    name = NAMES[each.severity].lower()
    bodies = (each.section.body, *each.section.body.values.get("error_information", ()))
    for body in bodies:
        for said, meaning in _said(body):
            if meaning != bad:
                yield f"its severity is {name}, and {said}"


def _said(body: Structure) -> Iterator[tuple[str, bool]]:
    """What the fields say of it: words, and whether it is uncorrected."""
    for item, value, _ in body.items():
        if not isinstance(item, Field) or not body.valid(item):
            continue
        meaning = item.meaning(value)
        if (item.name, meaning) in _SAYS:
            yield f"{item.title} is {meaning!r}", _SAYS[item.name, meaning]
        for bits, number, valid in body.bits(item):
            if bits.name == _CORRECTED and valid and number:
                yield f"{item.title} says {bits.title!r}", False
