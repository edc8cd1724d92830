"""Status blocks that are wrong on purpose: one value is, and nothing else."""

from __future__ import annotations

import pytest

from qemu_sdei.errors import CperError
from qemu_sdei.ras.block import Block, block, parse_block
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.kinds import Arm, ArmRas
from qemu_sdei.ras.malform import WORDS, malform, malformed, path_of
from qemu_sdei.ras.spots import Role, Spot, spots
from tests.examples import examples
from tests.ras.samples import SAMPLES, sample_entries

WHOLE = block(sample_entries(), raw=b"raw data")
MEMORY = block([entry(SAMPLES["memory"], "recoverable")])
ARM = block([entry(SAMPLES["arm"], "recoverable"), entry(SAMPLES["memory"])], raw=b"rest")


def spot(found: Block, path: str) -> Spot:
    return next(each for each in spots(found) if each.path == path)


def read(found: Block, data: bytes, path: str) -> int:
    """The number that stands where a field of the block as it was does."""
    return spot(found, path).number(data)


def test_each_field_can_be_changed_alone() -> None:
    data = WHOLE.pack()
    for each in tuple(spots(WHOLE))[:: examples(5, 1)]:  # each time all of it is read
        high, low = (malform(data, f"{each.path}={word}") for word in ("overflow", "underflow"))
        for out in (high, low):
            assert len(out) == len(data)
            differ = [at for at, (a, b) in enumerate(zip(data, out, strict=True)) if a != b]
            assert all(each.at <= at < each.at + each.field.size for at in differ), each.path
            assert differ or each.number(data) in (0, each.top), each.path
        assert each.number(high) == each.top


def test_lengths_counts_offsets_revisions_and_guids_of_all_parts_are_known() -> None:
    roles = {each.path: each.role for each in spots(WHOLE)}
    assert roles["data_length"] is roles["entry[2].error_data_length"] is Role.LENGTH
    assert roles["section[2].error_information[1].length"] is Role.LENGTH
    assert roles["section[2].context_information[0].register_array_size"] is Role.LENGTH
    assert roles["section[7].cxl_error_log_length"] is Role.LENGTH
    assert roles["block_status.error_data_entry_count"] is Role.COUNT
    assert roles["section[2].context_information_number"] is Role.COUNT
    assert roles["section[3].auxiliary_data.contexts[0].register_array_entry_count"] is Role.COUNT
    assert roles["raw_data_offset"] is roles["section[3].auxiliary_data_offset"] is Role.OFFSET
    assert roles["entry[1].revision"] is roles["section[2].error_information[0].version"] is Role.REVISION
    assert roles["entry[1].section_type"] is roles["entry[1].fru_id"] is Role.GUID


def test_a_length_that_is_too_small() -> None:
    """Less than the fixed part: what a reader takes for the rest is below zero."""
    data = ARM.pack()
    assert read(ARM, malform(data, "section[0].section_length=underflow"), "section[0].section_length") == 39
    path = "section[0].error_information[2].length"
    assert read(ARM, malform(data, f"{path}=underflow"), path) == 31
    assert read(ARM, malform(data, "data_length=underflow"), "data_length") == 71
    assert read(ARM, malform(data, "raw_data_offset=underflow"), "raw_data_offset") == 19


def test_a_length_that_leads_back() -> None:
    """The reader that adds it is where it was: at the same entry, context, error information."""
    data = ARM.pack()
    path = "entry[0].error_data_length"
    assert read(ARM, malform(data, f"{path}=cycle"), path) == 2**32 - 72
    path = "section[0].context_information[0].register_array_size"
    assert read(ARM, malform(data, f"{path}=cycle"), path) == 2**32 - 8
    path = "section[0].error_information[0].length"
    assert read(ARM, malform(data, f"{path}=cycle"), path) == 0
    assert read(ARM, malform(data, "raw_data_offset=cycle"), "raw_data_offset") == 4


TRUNCATED = {
    "data_length": (44, 0, 0),
    "entry[1].error_data_length": (40, 40, 0),
    "section[1].physical_address": (60, 60, 60),
    "block_status.error_data_entry_count": (40, 40, 40),
    "raw_data_length": (2, 0, 0),
}
"""What is truncated: how many bytes are gone, how much less the lengths of all entries and of the last one are."""


@pytest.mark.parametrize("path", TRUNCATED)
def test_bytes_that_end_too_early(path: str) -> None:
    """The field itself says as before how much there is; what is around it says how much is left."""
    data = ARM.pack()
    out = malform(data, f"{path}=truncate")
    gone, all_less, last_less = TRUNCATED[path]
    assert len(data) - len(out) == gone
    assert read(ARM, data, "data_length") - read(ARM, out, "data_length") == all_less
    length = "entry[1].error_data_length"
    assert read(ARM, data, length) - read(ARM, out, length) == last_less


def test_a_section_that_is_cut_is_still_an_entry() -> None:
    """What is around it is consistent, so that a reader gets as far as the section."""
    out = malform(ARM.pack(), "section[0].error_information[1].length=truncate")
    head = parse_block(MEMORY.pack()).head.table.parse(out[:20])
    whole = spot(ARM, "entry[0].error_data_length")
    size = whole.number(out)
    assert size == spot(ARM, "section[0].error_information[1].length").cut - whole.told[0]
    assert head["data_length"] == 72 + size + 72 + 80
    assert out[20 + 72 + size :][:16] == SAMPLES["memory"].kind.guid.bytes_le
    assert out.endswith(b"rest")
    assert out[head["raw_data_offset"] :] == b"rest"


def test_values() -> None:
    data = MEMORY.pack()
    made = parse_block(malform(data, "section[0].memory_error_type=Single-bit ECC"))
    assert made.entries[0].section["memory_error_type"] == 2
    made = parse_block(malform(data, "entry[0].error_severity=fatal"))
    assert made.entries[0].severity == 1
    assert read(MEMORY, malform(data, "data_length=+8"), "data_length") == 160
    assert read(MEMORY, malform(data, "section[0].node=-1"), "section[0].node") == 0xFFFF
    made = parse_block(malform(data, "entry[0].section_type=firmware"))
    assert made.entries[0].section.kind.name == "firmware"
    made = parse_block(malform(data, "section[0].error_status.error_type=16"))
    assert made.entries[0].section["error_status"] >> 8 & 0xFF == 16
    assert malform(data, "@0x14=00 11")[20:22] == b"\0\x11"
    assert malform(data, "@200=ff") == data.ljust(200, b"\0") + b"\xff"


def test_several_at_once() -> None:
    data = ARM.pack()
    out = malformed(data, ["section[1].node=7", "entry[0].error_data_length=truncate", "data_length=0x1234"])
    assert read(ARM, out, "data_length") == 0x1234, "what is said does not follow"
    assert out.endswith(malform(MEMORY.pack(), "section[0].node=7")[92:] + b"rest")
    twice = malformed(data, ["section[1].node=truncate", "section[1].card=truncate", "section[1].bank=truncate"])
    assert twice == malform(data, "section[1].node=truncate")


def test_a_word_alone_is_about_the_last_section() -> None:
    data = ARM.pack()
    for word in WORDS:
        assert malform(data, word) == malform(data, f"entry[1].error_data_length={word}")
    assert malform(block([]).pack(), "overflow")[12:16] == b"\xff" * 4


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("Section 0.Error Information 1.Length", "section[0].error_information[1].length"),
        ("sections[0].error_information[1].length", "section[0].error_information[1].length"),
        ("entries[2].revision", "entry[2].revision"),
        ("section.node", "section[0].node"),
        ("block.data-length", "data_length"),
        ("Block Status", "block_status"),
    ],
)
def test_names_as_they_are_printed(words: str, path: str) -> None:
    assert path_of(words) == path


def test_the_end_of_a_path_is_enough_where_there_is_one() -> None:
    assert malform(MEMORY.pack(), "node=5") == malform(MEMORY.pack(), "section[0].node=5")


REFUSED = {
    "node": "'node' is no edit",
    "section[0].lenght=1": r"there is no field 'section\[0\].lenght'; near it: section\[0\].section_length",
    "entry[0].revison=1": r"near it: entry\[0\].revision",
    "section[5].node=1": r"near it: section\[1\].node",
    "gremlin=1": "`qemu-sdei cper decode` prints",
    "section[0].error_information_number=cycle": "cycle is for lengths and offsets",
    "section[1].node=70000": r"section\[1\].node: '70000' is too large",
    "section[1].node=banana": r"section\[1\].node: 'banana' is not a number",
    "entry[0].section_type=banana": "'banana' is not a GUID",
    "section[0].reserved=zz": "not a row of bytes in hexadecimal",
    "error_severity=": "is no edit",
    "section[0].error_information.length=1": r"near it: section\[0\]",
    "length=1": "there are 4 fields 'length'",
    "@0xffffffff=00": "a block has up to",
    "@0=xyz": "not a row of bytes in hexadecimal",
}


@pytest.mark.parametrize("edit", REFUSED)
def test_what_cannot_be(edit: str) -> None:
    with pytest.raises(CperError, match=REFUSED[edit]) as error:
        malform(ARM.pack(), edit)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_there_must_be_something_to_truncate() -> None:
    with pytest.raises(CperError, match="raw_data_length: there is nothing that it tells of"):
        malform(MEMORY.pack(), "raw_data_length=truncate")


def test_what_is_no_block() -> None:
    with pytest.raises(CperError):
        malform(b"short", "overflow")


def test_what_is_told_is_where_it_says() -> None:
    """The bytes that lengths and offsets tell of are those that the tables say."""
    ras = block([entry(ArmRas(error_syndromes=[{"ras_extension_revision": 1}], auxiliary_data={"contexts": [{}]}))])
    data = ras.pack()
    at = spot(ras, "section[0].error_syndrome_array_offset")
    assert at.told[0] - at.structure == at.number(data)
    bare = block([entry(Arm(error_information=[{"type": 2}]))])
    info = spot(bare, "section[0].error_information[0].length")
    assert info.told == (20 + 72 + 40, 20 + 72 + 72)
    assert info.number(bare.pack()) == 32
