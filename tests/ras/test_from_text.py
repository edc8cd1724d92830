"""Sections from what people type: every field of every section can be said, and says just that."""

from __future__ import annotations

from typing import Any

import pytest

from qemu_sdei.errors import CperError
from qemu_sdei.ras import kinds
from qemu_sdei.ras.fields import Field, Kind
from qemu_sdei.ras.from_text import dashed, section, words
from qemu_sdei.ras.kinds import SectionKind
from qemu_sdei.ras.structure import Structure

ALL = list(kinds.KINDS.values())


def value_of(kind: SectionKind, name: str, text: str) -> Any:
    """What the section holds in the field of the word `name`, said as `text` and nothing else."""
    body: Any = section(kind, {name: [text]}).body
    for step in name.split("."):
        body = body[step.replace("-", "_")]
    return body


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_each_number_of_a_section_can_be_said(kind: SectionKind) -> None:
    said = 0
    for word in words(kind.table):
        if isinstance(word.item, Field) and word.item.kind is Kind.NUMBER:
            assert value_of(kind, word.name, "0x1") == 1, word.name
            said += 1
    assert said


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_each_name_of_a_value_can_be_typed_with_dashes(kind: SectionKind) -> None:
    for word in words(kind.table):
        item = word.item
        if not isinstance(item, Field) or item.kind is not Kind.NUMBER:
            continue
        for number, name in item.names.items():
            assert item.names[value_of(kind, word.name, dashed(name))] == name, (word.name, number)
        for bits in item.word.bits if item.word is not None and not item.word.joined else ():
            if not bits.reserved and bits.width == 1 and not bits.names:
                assert bits.of(value_of(kind, word.name, dashed(bits.title))) == 1, word.name


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_each_word_says_what_may_follow_it(kind: SectionKind) -> None:
    assert all(word.about for word in words(kind.table))


def test_what_is_said_is_valid_and_nothing_else() -> None:
    body = section(kinds.Memory, {"physical-address": ["0x41e78000"], "node": ["3"]}).body
    valid = [item.name for item, _, _ in body.items() if isinstance(item, Field) and item.valid and body.valid(item)]
    assert valid == ["physical_address", "node"]


def test_bits_have_values_and_names() -> None:
    body = section(kinds.Memory, {"error-status": ["error-type=ERR_MEM,address"], "bank": ["bank-group=2"]}).body
    assert body["error_status"] == 4 << 8 | 1 << 16
    assert body["bank"] == 2 << 8


def test_a_list_grows_with_each_use_of_its_word() -> None:
    body = section(
        kinds.Arm,
        {
            "error-information": [
                "type=cache-error flags=overflow,propagated error-information=operation=data-read,level=1",
                "type=tlb-error physical-fault-address=0x41e78000",
            ]
        },
    ).body
    first, second = body["error_information"]
    assert (first["type"], first["flags"]) == (2, 8 | 4)
    assert first["error_information"] == 3 << 18 | 1 << 22 | 0b110
    assert (second["type"], second["physical_fault_address"]) == (4, 0x41E78000)
    assert body["error_information_number"] == 2


def test_the_registers_of_a_context_are_said_by_their_names() -> None:
    body = section(
        kinds.Arm,
        {"context-information": ["register-context-type=4 register-array=" + "11" * 256]},
    ).body
    (context,) = body["context_information"]
    assert isinstance(context["register_array"], Structure)
    assert context["register_array"]["x0"] == 0x1111_1111_1111_1111


@pytest.mark.parametrize(
    ("said", "words_of_it"),
    [
        ({"memory-error-type": ["foo"]}, "memory_error_type: 'foo' is not a number; its names: 'Unknown'"),
        ({"nosuch": ["1"]}, "nosuch: Memory Error Section has no field 'nosuch'"),
        ({"node": ["0x10000"]}, "node: '0x10000' is too large for 'Node', 0xffff is most"),
        ({"error-status": ["nosuch"]}, "error_status.nosuch: there are no bits 'nosuch'"),
        ({"physical-address.x": ["1"]}, "physical_address: it has no fields of its own"),
    ],
)
def test_what_cannot_be_is_named(said: dict[str, list[str]], words_of_it: str) -> None:
    with pytest.raises(CperError) as error:
        section(kinds.Memory, said)
    assert words_of_it in str(error.value)


def test_a_part_is_said_once() -> None:
    with pytest.raises(CperError, match="as a whole and by its fields"):
        section(kinds.Pcie, {"device-id": ["00" * 16], "device-id.vendor-id": ["1"]})
