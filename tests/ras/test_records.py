"""Status blocks and whole records: made, read, damaged."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.errors import CperError, UsageError
from qemu_sdei.ras import kinds
from qemu_sdei.ras.block import Block, block, block_from_base64, parse_block, parse_blocks
from qemu_sdei.ras.conversion import as_block, as_record
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.kinds import KINDS, Memory, SectionKind
from qemu_sdei.ras.record import Record, parse_record, parse_records, record
from qemu_sdei.ras.severity import Severity, severity_of, worst
from tests.examples import examples
from tests.ras.samples import SAMPLES, VENDOR, blocks, refusal, sample_entries, whole_records

MEMORY_ERROR = Memory(physical_address=0x1000, memory_error_type=3)


def test_the_block_that_linux_took() -> None:
    """Head and entry as a prototype wrote them by hand for Linux 6.1 and 6.12."""
    body = MEMORY_ERROR.pack()
    text = b"DIMM A1"
    guid = bytes.fromhex("1411bca5646fde4eb8633e83ed7c83b1")
    head = struct.pack("<IIIII", 1 | 1 << 4, 0, 0, 72 + len(body), 0)
    one = guid + struct.pack("<IHBBI16s20sQ", 0, 0x300, 2, 0, len(body), b"", text, 0)
    assert block([entry(MEMORY_ERROR, "recoverable", fru_text="DIMM A1")]).pack() == head + one + body
    corrected = block([entry(MEMORY_ERROR), entry(MEMORY_ERROR)])
    assert corrected.pack()[:4] == struct.pack("<I", 2 | 2 << 4)
    assert corrected.severity == Severity.CORRECTED


def test_all_kinds_in_one_block_and_in_one_record() -> None:
    made = block(sample_entries(), raw=b"raw data")
    data = made.pack()
    assert parse_block(data) == made
    assert parse_block(data).raw == b"raw data"
    assert block_from_base64(made.base64()) == made
    whole = record(made.entries, platform_id=VENDOR, record_id=7, notification_type="SEA")
    assert parse_record(whole.pack()) == whole
    assert [each.section for each in whole.entries] == [each.section for each in made.entries]
    assert whole.severity == Severity.RECOVERABLE


@settings(max_examples=examples(25, 300))
@given(blocks())
def test_any_block_is_read_as_it_was_made(made: Block) -> None:
    data = made.pack()
    again = parse_block(data)
    assert again.pack() == data
    assert parse_block(again.pack()) == again


@settings(max_examples=examples(25, 300))
@given(whole_records())
def test_any_record_is_read_as_it_was_made(made: Record) -> None:
    data = made.pack()
    again = parse_record(data)
    assert again.pack() == data
    assert parse_record(again.pack()) == again


def test_an_entry_of_before_revision_3_has_no_timestamp() -> None:
    old = block([entry(MEMORY_ERROR, revision=0x201)])
    assert len(old.pack()) == 20 + 64 + 80
    assert parse_block(old.pack()) == old
    with pytest.raises(CperError, match="timestamp"):
        entry(MEMORY_ERROR, revision=0x201, timestamp="2026-11-30T12:00:00Z")


def test_a_timestamp_is_bcd() -> None:
    head = entry(MEMORY_ERROR, timestamp="2026-11-30T23:59:58+00:00").head
    assert head["timestamp"] == bytes.fromhex("58 59 23 00 30 11 26 20")
    for wrong in ("2026-13-01T00:00:00Z", "yesterday", 5):
        with pytest.raises(CperError, match="time"):
            entry(MEMORY_ERROR, timestamp=wrong)


def test_what_follows_the_entries_stays() -> None:
    """A status block stands in memory of some size; what is behind it is kept."""
    made = block([entry(MEMORY_ERROR)])
    padded = parse_block(made.pack() + bytes(100))
    assert padded.rest == bytes(100)
    assert padded.entries == made.entries


def test_a_bert_region_has_several_blocks() -> None:
    one, other = block([entry(MEMORY_ERROR)], raw=b"abc"), block([entry(SAMPLES["arm"], "fatal")])
    found = parse_blocks(one.pack() + other.pack() + bytes(64))
    assert [each.pack() for each in found] == [one.pack(), other.pack() + bytes(64)]
    with pytest.raises(CperError) as error:
        parse_blocks(one.pack() + other.pack()[:-1])
    assert error.value.offset == len(one.pack()) + 12


def test_records_one_behind_the_other() -> None:
    one, other = record([entry(MEMORY_ERROR)]), record([entry(SAMPLES["pcie"], "fatal")])
    assert list(parse_records(one.pack() + other.pack())) == [one, other]
    with pytest.raises(CperError, match="280 bytes follow the record"):
        parse_record(one.pack() * 2)


def test_a_record_as_a_block_and_back() -> None:
    made = block([entry(MEMORY_ERROR, "fatal", fru_text="DIMM", timestamp="2026-11-30T12:00:00Z")])
    whole = as_record(made)
    assert whole.severity == Severity.FATAL
    assert whole.entries[0].about["fru_text"].rstrip(b"\0") == b"DIMM"
    assert as_block(whole) == made
    assert as_record(whole) is whole


def test_the_worst_severity() -> None:
    assert worst() == worst(3) == Severity.INFORMATIONAL
    assert worst(3, 2) == Severity.CORRECTED
    assert worst(2, 0, 3) == Severity.RECOVERABLE
    assert worst(0, 1, 99) == Severity.FATAL
    assert severity_of("Fatal") is severity_of(1) is Severity.FATAL
    with pytest.raises(
        UsageError, match="'bad' is no severity: it is one of recoverable, fatal, corrected, informational"
    ):
        severity_of("bad")


# ---- damage


def damaged(data: bytes) -> Iterator[tuple[int, bytes]]:
    """`data` cut at each byte, and with each byte changed."""
    for at in range(len(data)):
        yield at, data[:at]
        for value in (0xFF, data[at] ^ 0x80):
            yield at, data[:at] + bytes([value]) + data[at + 1 :]


@pytest.mark.parametrize("form", ["block", "record"])
def test_damage_is_refused_or_kept(form: str) -> None:
    chosen = [entry(SAMPLES[name], "recoverable") for name in ("firmware", "arm-ras")]
    whole = block(chosen).pack() if form == "block" else record(chosen).pack()
    parse = parse_block if form == "block" else parse_record
    refused = 0
    for at, data in damaged(whole):

        def kept(data: bytes = data) -> None:
            assert parse(data).pack() == data

        if (error := refusal(kept)) is not None:
            refused += 1
            assert error.offset is not None
            assert error.offset <= len(whole)
            assert error.field, (at, error)
            assert str(error).startswith(f"offset {error.offset:#x}, {error.field}: ")
    assert refused > len(whole)


@settings(max_examples=examples(25, 300))
@given(st.sampled_from(["arm", "arm-ras", "cxl-dram"]), st.data())
def test_wrong_lengths_are_refused_or_kept(name: str, data: st.DataObject) -> None:
    """Counts and lengths of any value, at any depth, in time that their size does not decide."""
    section = SAMPLES[name]
    raw = bytearray(section.pack())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 4))
        raw[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\xff\xff\0\0", b"\x01\0\0\0"]))

    def kept() -> None:
        assert section.kind.parse(bytes(raw)).pack() == bytes(raw)

    if (error := refusal(kept)) is not None:
        assert error.offset is not None


def test_a_count_costs_nothing_before_it_is_believed() -> None:
    arm_ras = SAMPLES["arm-ras"].body.replaced(error_syndrome_array_num_entries=0xFFFF_FFFF).pack()
    with pytest.raises(CperError, match="4294967295 times at least 72 bytes are needed") as error:
        kinds.ArmRas.parse(arm_ras)
    assert error.value.field == "error_syndromes"


DAMAGE = {
    "an empty block": (b"", "offset 0x0, block_status: cut short: 4 bytes are needed here, 0 are left"),
    "less entries": (
        block([entry(MEMORY_ERROR)]).pack()[:-1],
        "offset 0xc, data_length: it says 152 bytes of entries, 151 are there",
    ),
    "an entry too long": (
        struct.pack("<5I", 0x11, 0, 0, 72, 0) + entry(MEMORY_ERROR).head.pack(),
        "offset 0x2c, entries[0].error_data_length: it says 80 bytes of section, 0 are left",
    ),
    "a section cut short": (
        block([entry(kinds.raw(Memory.guid, bytes(40)))]).pack(),
        "offset 0x84, entries[0].section.device: cut short: 2 bytes are needed here, 0 are left",
    ),
    "raw data outside": (
        struct.pack("<5I", 0x11, 20, 100, 0, 0),
        "offset 0x4, raw_data_offset: it ends at 0x78, the block at 0x14",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_said_with_its_place(case: str) -> None:
    data, message = DAMAGE[case]
    with pytest.raises(CperError) as error:
        parse_block(data)
    assert str(error.value) == message


def test_what_is_no_record() -> None:
    good = record([entry(MEMORY_ERROR)]).pack()
    for at, bad, words in (
        (0, b"X", "it is no CPER record"),
        (6, b"\0\0\0\0", "is not 0xffffffff"),
        (10, b"\xff\xff", "65535 sections do not fit into 280 bytes"),
        (20, b"\xff\xff\xff\x7f", "it says 2147483647 bytes, 280 are there"),
        (128, b"\0\x10\0\0", "the section ends at 0x1050, the record at 0x118"),
    ):
        with pytest.raises(CperError, match=words):
            parse_record(good[:at] + bad + good[at + len(bad) :])
    with pytest.raises(CperError, match="too many"):
        parse_block(bytes((1 << 20) + 1))


def test_bytes_between_the_sections_stay() -> None:
    good = record([entry(MEMORY_ERROR)])
    data = bytearray(good.pack() + b"spare\0\0\0")
    data[20:24] = len(data).to_bytes(4, "little")
    again = parse_record(bytes(data))
    assert again.pack() == data
    assert again.others == ((280, b"spare"),)


def test_kinds_of_a_user_come_along() -> None:
    own = SectionKind(VENDOR, Memory.table, "Own", "Own")
    data = block([entry(kinds.raw(VENDOR, MEMORY_ERROR.pack()))]).pack()
    assert parse_block(data).entries[0].section.kind.table is kinds.RAW
    assert parse_block(data, {**KINDS, VENDOR: own}).entries[0].section["memory_error_type"] == 3


def test_one_section_is_not_read_a_thousand_times() -> None:
    """Descriptors are small, and the section that they name may be as large as the record."""
    good = record([entry(kinds.raw(VENDOR, bytes(400)))] * 3)
    data = bytearray(good.pack())
    for number in range(3):
        at = 128 + 72 * number
        data[at : at + 8] = (128).to_bytes(4, "little") + (len(data) - 128).to_bytes(4, "little")
    with pytest.raises(CperError, match="bytes more than the record") as error:
        parse_record(bytes(data))
    assert error.value.field == "sectionDescriptors[1].section_length"


def test_too_much() -> None:
    with pytest.raises(CperError, match="1024 entries are too many"):
        block([entry(MEMORY_ERROR)] * 1024)
    with pytest.raises(CperError, match="65536 is more than 'CXL DVSEC Length' can say"):
        kinds.CxlProtocol(cxl_dvsec=bytes(0x1_0000))
