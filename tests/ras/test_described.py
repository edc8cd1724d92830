"""A vendor's section by a user's file: the example that is shipped, and files that are wrong."""

from __future__ import annotations

from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.errors import CperError
from qemu_sdei.ras.block import block, parse_block
from qemu_sdei.ras.checks import check
from qemu_sdei.ras.described import described
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.kinds import KINDS, with_kinds
from qemu_sdei.ras.libcper import from_json, to_json
from qemu_sdei.ras.printed import printed
from tests.examples import examples
from tests.ras.samples import refusal

EXAMPLE = (resources.files("qemu_sdei") / "data/ras/example-sram.toml").read_bytes()
HEAD = '[section]\nname = "own"\ntitle = "Own"\nguid = "8d3c1c7e-5f0a-4b0e-9d62-1a2b3c4d5e6f"\n'


def test_the_example_is_a_section_like_any_other() -> None:
    kind = described(EXAMPLE)
    every = with_kinds([kind])
    section = kind(
        error_kind="double-bit ecc",
        flags={"corrected": 0, "way": 5, "access": "Scrub"},
        address=0x8000,
        array_name="L3 tags",
        syndrome=b"\x01\x02\x03",
    )
    assert section["validation_bits"] == 0b101_1011
    assert section["syndrome_length"] == 3
    made = block([entry(section)])
    assert parse_block(made.pack(), every) == made
    assert from_json(to_json(made), every) == made
    assert check(made) == []
    text = printed(made)
    for words in (
        "Example SRAM Error Section: Double-bit ECC, Address 0x8000",
        "Way: 5",
        "Access: 2 (Scrub)",
        '"L3 tags"',
    ):
        assert words in text
    said = to_json(made)["sections"][0]["ExampleSram"]
    assert said["flags"] == {"corrected": False, "way": 5, "access": {"value": 2, "name": "Scrub"}}
    assert said["errorKind"] == {"value": 2, "name": "Double-bit ECC"}
    # Nobody who has not the file is in the way of it.
    assert parse_block(made.pack()).pack() == made.pack()


def test_a_type_of_ours_can_be_described_anew() -> None:
    guid = next(iter(KINDS))
    kind = described((HEAD.replace("8d3c1c7e-5f0a-4b0e-9d62-1a2b3c4d5e6f", str(guid)) + FIELD).encode())
    assert with_kinds([kind])[guid] is kind


FIELD = '[[field]]\ntitle = "A"\nsize = 4\n'
WRONG = {
    "no TOML": ("=", "the file is no TOML"),
    "no text": ("\udcff", "the file is no TOML"),
    "no section": (FIELD, "there is no [section]"),
    "no fields": (HEAD, "field: there must be 1 to 1024 [[field]]"),
    "an unknown key": (HEAD + 'x = 1\n' + FIELD, "section: there is no key 'x', only guid, headline, json"),
    "an unknown key of a field": (HEAD + FIELD + "offset = 1\n", "field[0]: there is no key 'offset'"),
    "a name": (HEAD.replace('"own"', '"Own 1"') + FIELD, "section.name: 'Own 1' is not of small letters"),
    "a GUID": (HEAD.replace("8d3c", "xxxx") + FIELD, "section.guid: it is not a GUID"),
    "no title": (HEAD + "[[field]]\nsize = 4\n", "field[0].title: it is missing"),
    "a title of nothing": (HEAD + '[[field]]\ntitle = "-"\nsize = 4\n', "field[0].title: '-' has neither letters"),
    "a title that a terminal obeys": (HEAD + '[[field]]\ntitle = "\\u001b[2J"\nsize = 4\n', "field[0].title: it is no"),
    "no size": (HEAD + '[[field]]\ntitle = "A"\n', "field[0]: it needs a size"),
    "a size": (HEAD + FIELD.replace("4", "9"), "field[0].size: it is not a number up to 8"),
    "true for a number": (HEAD + FIELD.replace("4", "true"), "field[0].size: it is not a number"),
    "a kind": (HEAD + FIELD + 'kind = "float"\n', "field[0].kind: 'float' is not one of number, guid"),
    "twice": (HEAD + FIELD + FIELD, "field[1]: 'A' is there twice"),
    "one key of JSON": (HEAD + FIELD + FIELD.replace("A", "B") + 'json = "a"\n', "field[1]: two fields are 'a'"),
    "bits outside": (HEAD + FIELD + 'bits = [{title = "b", low = 31, width = 2}]\n', "field[0].bits[0]: bits 31 to 32"),
    "bits of text": (HEAD + FIELD + 'kind = "text"\nbits = [{title = "b", low = 1}]\n', "field[0].bits: it is not"),
    "bits twice": (
        HEAD + FIELD + 'bits = [{title = "b", low = 1}, {title = "b", low = 2}]\n',
        "field[0].bits: two bits have one title",
    ),
    "names": (HEAD + FIELD + 'names = { x = "y" }\n', "field[0].names: it has not only numbers"),
    "valid without a mask": (HEAD + FIELD + "valid = 1\n", "section: fields say `valid`"),
    "a mask that is none": (HEAD + 'validation = "B"\n' + FIELD, "section.validation: there is no such number"),
    "a bit that the mask has not": (
        HEAD + 'validation = "A"\n' + FIELD + FIELD.replace("A", "B") + "valid = 32\n",
        "field[1].valid: there is no validation bit 32",
    ),
    "a length by nothing": (
        HEAD + '[[field]]\ntitle = "D"\nkind = "bytes"\nlength = "A"\n' + FIELD,
        "field[0].length: no number 'a' is before it",
    ),
    "a length of nothing": (HEAD + FIELD + 'length_of = "D"\n', "field[0].length_of: there are no bytes 'd'"),
    "a headline": (HEAD + 'headline = ["X"]\n' + FIELD, "section.headline: there is no field 'X'"),
    "a member that is ours": (HEAD + 'json = "message"\n' + FIELD, "section.json: 'message' means something else"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_wrong_is_refused_in_one_line(case: str) -> None:
    text, message = WRONG[case]
    with pytest.raises(CperError) as error:
        described(text.encode("utf-8", "surrogateescape"))
    words = str(error.value).removeprefix("the file: ")
    assert words.startswith(message)
    assert len(words.splitlines()) == 1


@pytest.mark.parametrize("kind", ["guid", "text", "bytes"])
def test_a_headline_of_any_kind_is_printed(kind: str) -> None:
    """`hexadecimal` says how numbers are printed, and nothing of others."""
    text = HEAD + f'headline = ["A"]\n[[field]]\ntitle = "A"\nkind = "{kind}"\nsize = 16\nhexadecimal = true\n'
    found = printed(block([entry(described(text.encode()).parse(bytes(16)))]))
    assert any(line.split()[:1] == ["A"] or line.strip().startswith("A:") for line in found.splitlines()), found


@settings(max_examples=examples(60, 500))
@given(st.data())
def test_a_damaged_file_is_taken_or_refused(data: st.DataObject) -> None:
    lines = EXAMPLE.decode().splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        other = data.draw(st.sampled_from(lines))
        lines[at] = data.draw(st.sampled_from([other, "", lines[at].replace("=", "= -"), lines[at].swapcase()]))
    refusal(lambda: printed(block([entry(described("\n".join(lines).encode()).parse(bytes(64)))])))
