"""Records as people see them, and what is wrong with them."""

from __future__ import annotations

import pytest

from qemu_sdei.ras import kinds
from qemu_sdei.ras.block import block, parse_block
from qemu_sdei.ras.checks import Level, check
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.kinds import Section
from qemu_sdei.ras.printed import printed
from qemu_sdei.ras.record import parse_record, record
from qemu_sdei.ras.summary import summary
from tests.ras.samples import SAMPLES, sample_entries

MEMORY_ERROR = kinds.Memory(physical_address=0x1000, memory_error_type=3)


def test_a_block_is_printed_field_by_field() -> None:
    memory = SAMPLES["memory"]
    text = printed(block([entry(memory, "recoverable", fru_text="DIMM A1", flags={"primary": 1})]))
    assert (
        text
        == """\
Generic Error Status Block: recoverable, 1 entry
  Block Status     0x00000011 (Uncorrectable Error Valid)
    Error Data Entry Count: 1
  Raw Data Offset  0
  Raw Data Length  0
  Data Length      152
  Error Severity   0 (Recoverable)

Entry 0: recoverable
  Section Type       a5bc1114-6f64-4ede-b863-3e83ed7c83b1 (Platform Memory)
  Error Severity     0 (Recoverable)
  Revision           3.0
  Validation Bits    0x02
  Flags              0x01 (Primary)
  Error Data Length  80
  FRU Text           "DIMM A1"
  Memory Error Section: Multi-bit ECC, Physical Address 0x41e78000
    Validation Bits        0x00000000003c403f
    Error Status           0x0000000000200400 (First Error)
      Error Type: 4 (ERR_MEM: storage error in DRAM)
    Physical Address       0x0000000041e78000
    Physical Address Mask  0xfffffffffffff000
    Node                   0
    Card                   1
    Module                 2
    Bank                   258
      Bank Address: 2
      Bank Group: 1
    Memory Error Type      3 (Multi-bit ECC)
    Extended               161
      Row Bit 16: yes
      Row Bit 17: no
      Chip Identification: 5
"""
    )


def test_all_sections_fit_into_80_columns() -> None:
    text = printed(record(sample_entries())) + printed(block(sample_entries(), raw=b"raw data"))
    assert max(map(len, text.splitlines())) <= 80
    for words in (
        "  Operation: 7 (Eviction)", "Register Array: AArch64 EL2 Context Registers", "Malformed TLP", "0000:00:01.0",
        "(SMMUErrorNode)", "System Physical Address  0x0000000009050000", "Key Value Pairs 0", "Receiver Overflow",
        "2026-11-30T12:34:56+00:00", "Behind the entries: 8 bytes", "Data Path Error", "Neoverse N1",
    ):  # fmt: skip
        assert words in text, words


def test_what_is_not_valid_is_left_out_or_said() -> None:
    body = MEMORY_ERROR.body.replaced(node=7)
    lines = printed(block([entry(Section(kinds.Memory, body))])).splitlines()
    assert [line.split() for line in lines if "valid)" in line and "Node" in line] == [["Node", "7", "(not", "valid)"]]
    assert not [line for line in lines if "Card" in line]


def test_a_terminal_obeys_none_of_it() -> None:
    made = block([entry(MEMORY_ERROR, fru_text="\x1b[2J\x1b]0;x\x07")])
    text = printed(made)
    assert "\x1b" not in text
    assert "\x07" not in text
    firm = kinds.Processor(cpu_brand_string="\x1b[31mred")
    assert "\x1b" not in printed(block([entry(firm)]))


def test_a_summary_says_what_happened() -> None:
    kinds_of_errors = "Cache Error, TLB Error, Bus Error, Micro-Architectural Error"
    assert summary(SAMPLES["arm"]) == f"Arm Processor Error Section: MPIDR_EL1 0x80000003, {kinds_of_errors}"
    assert summary(SAMPLES["pcie"]) == "PCI Express Error Section: Root Port, 0000:00:01.0"
    assert summary(kinds.Memory()) == "Memory Error Section"


# ---- what is wrong


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "arm"])
def test_nothing_is_wrong_with_the_samples(name: str) -> None:
    made = [entry(SAMPLES[name], "recoverable", fru_text="x")]
    assert check(block(made)) == []
    assert check(record(made)) == []


def test_values_without_a_meaning_and_reserved_bytes() -> None:
    data = bytearray(block([entry(SAMPLES["memory2"])]).pack())
    body = 20 + 72
    data[body + 61] = 99
    data[body + 63] = 1
    data[body + 7] = 0x80
    data[body + 11] = 0x40
    found = check(parse_block(bytes(data)))
    assert [str(each) for each in found] == [
        "warning: sections[0].validation_bits: bits 0x8000000000000000 have no meaning",
        "warning: sections[0].memory_error_type: 99 has no meaning",
        "warning: sections[0].reserved: reserved bytes are not 0",
    ]
    assert {each.level for each in found} == {Level.WARNING}
    assert [str(each) for each in check(block([entry(SAMPLES["arm"])]))] == [
        "warning: sections[0].context_information[9].register_context_type: 77 has no meaning"
    ]


def test_counts_and_lengths_that_are_wrong() -> None:
    arm = kinds.Arm(error_information=[{"type": 2, "length": 31}])
    found = check(block([entry(arm)]))
    assert [str(each) for each in found] == [
        "error: sections[0].error_information[0].length: it is 31, and should be 32"
    ]
    made = block([entry(MEMORY_ERROR)])
    wrong = parse_block(made.head.replaced(block_status=0x32).pack() + made.pack()[20:])
    assert [str(each) for each in check(wrong)] == ["error: block_status: it counts 3 entries, and there are 1"]
    assert "no error" in str(check(block([]))[0])


def test_severities_that_contradict_each_other() -> None:
    made = block([entry(MEMORY_ERROR, "fatal")], "corrected")
    assert [str(each) for each in check(made)] == [
        "warning: error_severity: it is corrected, and the worst section is fatal"
    ]
    made = block([entry(MEMORY_ERROR, "fatal")])
    made = parse_block(made.head.replaced(block_status=0x12).pack() + made.pack()[20:])
    assert [each.field for each in check(made)] == ["block_status"]


def test_sections_of_a_record_that_overlap() -> None:
    made = record([entry(MEMORY_ERROR), entry(MEMORY_ERROR)])
    data = bytearray(made.pack())
    at = 128 + 72
    data[at : at + 4] = (128 + 144 + 40).to_bytes(4, "little")
    data[128 + 8 : 128 + 10] = b"\x01\x02"
    found = [str(each) for each in check(parse_record(bytes(data)))]
    assert "error: sectionDescriptors[1].section_offset: it overlaps section 0" in found


def test_text_and_times_that_are_none() -> None:
    made = entry(MEMORY_ERROR, fru_text=b"\xff" * 20, timestamp=b"\xff" * 8)
    assert [each.field for each in check(block([made]))] == ["entries[0].fru_text", "entries[0].timestamp"]
