"""The physical addresses that sections say: where the error was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from qemu_sdei.errors import CperError
from qemu_sdei.ras.fields import Field
from qemu_sdei.ras.kinds import Section
from qemu_sdei.ras.structure import Structure

_FIELDS: Final = ("physical_address", "target_address", "physical_fault_address")
_PARTS: Final = "error_information"
"""Of an Arm processor section: each of its error informations has an address of its own."""


def has_place(section: Section) -> bool:
    """Whether a section of this kind can say a physical address."""
    return bool(list(_fields(section.body))) or _PARTS in section.body.values


def addresses(section: Section) -> list[int]:
    """The physical addresses that are valid in it."""
    bodies = (section.body, *section.body.values.get(_PARTS, ()))
    return [int(body[field.name]) for body in bodies for field in _fields(body) if body.valid(field)]


def addressed(section: Section, address: int) -> Section:
    """The same section with its error at `address`.

    Raises:
        CperError: a section of this kind says no physical address, or this one has no error information to say it.
    """
    parts = section.body.values.get(_PARTS)
    if parts is not None:
        if not parts:
            raise CperError("it needs an error information to say an address", field=_PARTS)
        body = replace(
            section.body, values={**section.body.values, _PARTS: tuple(_placed(each, address) for each in parts)}
        )
        return replace(section, body=body)
    if not has_place(section):
        raise CperError(f"a section {section.kind.name!r} says no physical address")
    return replace(section, body=_placed(section.body, address))


def _fields(body: Structure) -> Iterator[Field]:
    for name in _FIELDS:
        item = body.table.by_name.get(name)
        if isinstance(item, Field) and name in body.values:
            yield item


def _placed(body: Structure, address: int) -> Structure:
    (field, *_) = _fields(body)
    valid = 0 if field.valid is None else 1 << field.valid
    return body.replaced(**{field.name: address, body.table.validity: body.validation_bits | valid})
