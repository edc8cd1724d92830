"""Sections: what is made of words has the bytes that the specifications say, and is read as the same words."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei import ras
from qemu_sdei.errors import CperError, UsageError
from qemu_sdei.ras import kinds
from qemu_sdei.ras.block import BLOCK
from qemu_sdei.ras.entry import DESCRIPTOR, ENTRY, OLD_ENTRY
from qemu_sdei.ras.fields import Field, Word
from qemu_sdei.ras.kinds import KINDS, Section, kind_named, kind_of
from qemu_sdei.ras.record import RECORD
from qemu_sdei.ras.sections import arm
from qemu_sdei.ras.sections.error_status import ERROR_STATUS
from qemu_sdei.ras.structure import Structure
from tests.examples import examples
from tests.ras.samples import SAMPLES, VENDOR, parts_of, refusal, sections

SIZES = {
    # UEFI 2.10 appendix N
    "memory": 80, "memory2": 96, "processor": 192, "arm": 40, "arm-error-information": 32, "arm-context": 8,
    "arm-context-0": 64, "arm-context-1": 96, "arm-context-2": 64, "arm-context-3": 8, "arm-context-4": 256,
    "arm-context-5": 136, "arm-context-6": 120, "arm-context-7": 80, "arm-context-8": 10, "pcie": 208,
    "pcie-device-id": 16, "firmware": 32, "cxl-protocol": 116, "cxl-device-id": 16, "cxl-component-device-id": 12,
    "cxl-general-media": 32, "cxl-dram": 32, "cxl-memory-module": 32, "cxl-physical-switch": 32,
    "cxl-virtual-switch": 32, "cxl-mld-port": 32,
    # PCIe 6.0, CXL 3.1
    "pcie-capability": 60, "aer": 96, "cxl-ras-capability": 88, "cxl-event-general-media": 112, "cxl-event-dram": 112,
    "cxl-event-memory-module": 112, "cxl-event-other": 112,
    # DEN0085; instance and type of the IP have 16 and 24 of the node's 80 bytes
    "arm-ras": 40, "arm-ras-pe": 16, "arm-ras-address": 16, "arm-ras-local": 16, "arm-ras-soc": 16, "arm-ras-midr": 24,
    "arm-ras-smmu": 24, "arm-ras-gic": 24, "arm-ras-pidr": 24, "arm-ras-error-record": 72, "arm-ras-auxiliary": 16,
    "arm-ras-context": 16, "arm-ras-register": 16, "arm-ras-pair": 24,
}  # fmt: skip
"""Bytes of what is there in any case."""
every_kind = pytest.mark.parametrize("section", SAMPLES.values(), ids=SAMPLES)


def test_each_kind_has_a_sample_and_a_name_in_the_package() -> None:
    assert {getattr(ras, name) for name in ras.__all__} == set(KINDS.values())
    assert set(SAMPLES) == {kind.name for kind in KINDS.values()}


def test_structures_have_the_size_that_is_specified() -> None:
    tables = {each for kind in KINDS.values() for each in parts_of(kind.table)}
    assert {each.name: each.fixed_size for each in tables} == SIZES
    assert [each.fixed_size for each in (BLOCK, ENTRY, OLD_ENTRY, RECORD, DESCRIPTOR)] == [20, 72, 64, 128, 72]


def test_each_field_is_where_it_should_be() -> None:
    """A few of each section, from the specifications' own offsets."""
    places = {
        "memory": {"physical_address": 16, "node": 32, "bank": 38, "requestor_id": 48, "memory_error_type": 72},
        "memory2": {"bank": 38, "device": 40, "chip_identification": 60, "status": 62, "module_handle": 92},
        "arm": {"section_length": 8, "error_affinity_level": 12, "mpidr_el1": 16, "psci_state": 36},
        "processor": {"level": 13, "cpu_version_info": 16, "cpu_brand_string": 24, "instruction_ip": 184},
        "pcie": {
            "port_type": 8,
            "device_id": 24,
            "device_serial_number": 40,
            "capability_structure": 52,
            "aer_info": 112,
        },
        "cxl-protocol": {"cxl_agent_address": 16, "device_id": 24, "capability_structure": 48, "cxl_dvsec_length": 108},
        "cxl-dram": {"device_id": 12, "device_serial_number": 24, "cxl_component_event_log": 32},
        "arm-ras": {"error_syndrome_array_offset": 12, "ip_instance_format": 16, "ip_instance": 24, "user_data": 64},
        "firmware": {"record_identifier": 8, "record_identifier_guid": 16},
    }
    for name, wanted in places.items():
        found = {item.name: at for item, _, at in SAMPLES[name].body.items()}
        assert {each: found[each] for each in wanted} == wanted, name


_COMMON = {
    "validation_bits": (0, 16), "transaction_type": (16, 2), "operation": (18, 4), "level": (22, 3),
    "processor_context_corrupt": (25, 1), "corrected": (26, 1), "precise_pc": (27, 1), "restartable_pc": (28, 1),
}  # fmt: skip
WORDS: dict[str, tuple[Word, dict[str, tuple[int, int]]]] = {
    "cache": (arm.CACHE_ERROR, _COMMON),
    "tlb": (arm.TLB_ERROR, _COMMON),
    "bus": (
        arm.BUS_ERROR,
        _COMMON
        | {"participation_type": (29, 2), "timed_out": (31, 1), "address_space": (32, 2)}
        | {"memory_attributes": (34, 9), "access_mode": (43, 1)},
    ),
    "error status": (
        ERROR_STATUS,
        {"error_type": (8, 8)}
        | {name: (low, 1) for low, name in enumerate(("address", "control", "data", "responder", "requester"), 16)}
        | {"first_error": (21, 1), "overflow": (22, 1)},
    ),
}
"""Lowest bit and width, as UEFI 2.10 has them."""


@pytest.mark.parametrize("name", WORDS)
def test_each_bit_is_where_it_should_be(name: str) -> None:
    word, wanted = WORDS[name]
    assert {each.name: (each.low, each.width) for each in word.bits} == wanted


def test_the_types_of_arm_errors_are_bits() -> None:
    """UEFI 2.10, and what Linux takes: values 0 to 3 of before are unhandled."""
    assert {name: number for number, name in arm.ERROR_TYPES.items()} == {
        "Cache Error": 2,
        "TLB Error": 4,
        "Bus Error": 8,
        "Micro-Architectural Error": 16,
    }
    assert [each.valid for each in arm.BUS_ERROR.bits] == [None, *range(12)]


def test_validation_bits_are_numbered_as_the_specification_does() -> None:
    for name, wanted in {
        "memory": [*range(6), 6, *range(7, 16), 16, 17],
        "memory2": [*range(20)],
        "processor": [*range(13)],
        "pcie": [*range(8)],
        "cxl-protocol": [*range(7)],
        "cxl-dram": [*range(3)],
        "arm": [1, 0, 2, 3],
    }.items():
        items = SAMPLES[name].kind.table.items
        assert [each.valid for each in items if each.valid is not None] == wanted, name
    bank = kinds.Memory.table["bank"], kinds.Memory2.table["bank"]
    assert [[b.valid for b in each.word.bits] for each in bank if isinstance(each, Field) and each.word] == [
        [20, 19],
        [21, 20],
    ]


@every_kind
def test_a_section_is_read_as_it_was_made(section: Section) -> None:
    data = section.pack()
    assert section.kind.parse(data) == section
    assert kind_of(section.kind.guid) is section.kind
    assert kind_named(section.kind.name) is section.kind


@settings(max_examples=examples(50, 500))
@given(sections())
def test_any_section_is_read_as_it_was_made(section: Section) -> None:
    data = section.pack()
    again = section.kind.parse(data)
    assert again.pack() == data
    assert again.kind is section.kind


def test_nothing_follows_what_takes_all_that_is_left() -> None:
    """It could not be told from it: 15 bytes and one more are read as a structure of 16."""
    few = bytes(15)
    assert kinds.ArmRas.table.make({"auxiliary_data": few}).pack()[-15:] == few
    assert kinds.ArmRas.table.make({}, tail=b"tail").pack()[-4:] == b"tail"
    for table, name in ((kinds.ArmRas.table, "auxiliary_data"), (kinds.RAW, "data")):
        with pytest.raises(CperError, match="takes all that is left, nothing can follow it"):
            table.make({name: few}, tail=b"\x00")


@settings(max_examples=examples(100, 1000))
@given(st.sampled_from(sorted(SAMPLES)), st.binary(max_size=400))
def test_any_bytes_are_kept_or_refused(name: str, data: bytes) -> None:
    """What can be read gives the same bytes; what cannot says where."""
    kind = SAMPLES[name].kind

    def kept() -> None:
        assert kind.parse(data).pack() == data

    if (error := refusal(kept)) is not None:
        assert error.offset is not None
        assert 0 <= error.offset <= len(data)
        assert error.field


def test_the_bytes_that_linux_took() -> None:
    """Written by hand for a prototype, and taken by Linux 6.1 and 6.12."""
    address, mask = 0x41E7_8000, 0xFFFF_FFFF_FFFF_F000
    memory = struct.pack("<QQQQHHHHHHHHQQQBBHHH", 0x403E, 0, address, mask, *[0] * 8, 0, 0, 0, 3, 0, 0, 0, 0)
    made = kinds.Memory(
        physical_address=address,
        physical_address_mask=mask,
        node=0,
        card=0,
        module=0,
        memory_error_type="multi-bit ecc",
    )
    assert made.pack() == memory

    information = struct.pack("<BBHBHBQQQ", 0, 32, 0x16, 2, 0, 0, 0x9100_0000_0042_0007, 0, address)
    arm = struct.pack("<IHHIB3xQQII", 5, 1, 0, 72, 0, 0x8000_0001, 0x410F_D083, 1, 0) + information
    made = kinds.Arm(
        mpidr_el1=0x8000_0001,
        midr_el1=0x410F_D083,
        running_state=1,
        error_information=[
            {
                "type": "Cache Error",
                "flags": 0,
                "error_information": 0x9100_0000_0042_0007,
                "physical_fault_address": address,
            }
        ],
    )
    assert made.pack() == arm

    aer = bytes.fromhex("01000100") + struct.pack("<IIIIII4I", 0x4000, 0, 0x462030, 0, 0, 14, 1, 2, 3, 4) + bytes(52)
    pcie = struct.pack("<QIBBHHHI", 0x8D, 4, 0, 0, 0, 0x507, 0x10, 0)
    pcie += struct.pack("<HH3BBBHBBHB", 0x1B36, 0xC, 0, 4, 6, 0, 1, 0, 0, 0, 0, 0) + bytes(8 + 4) + bytes(60) + aer
    made = kinds.Pcie(
        port_type="Root Port",
        command_status={"command_register": 0x507, "status_register": 0x10},
        device_id={"vendor_id": 0x1B36, "device_id": 0xC, "class_code": 0x060400, "device_number": 1},
        aer_info={
            "uncorrectable_error_status": {"completion_timeout": True},
            "uncorrectable_error_severity": 0x462030,
            "advanced_error_capabilities_and_control": {"first_error_pointer": 14},
            **{f"header_log_{n}": n + 1 for n in range(4)},
        },
    )
    assert made.pack() == pcie


def test_validation_bits_say_what_was_given() -> None:
    memory = kinds.Memory(node=0, bank={"bank_address": 1})
    valid = {item.name for item in memory.kind.table.items if memory.body.valid(item)}
    assert valid == {"validation_bits", "node"}
    assert memory["validation_bits"] == 1 << 3 | 1 << 20
    assert kinds.Memory(bank=1)["validation_bits"] == 1 << 6
    assert kinds.Memory(node=0, validation_bits=0)["validation_bits"] == 0
    information = kinds.Arm(error_information=[{"type": 2, "error_information": {"level": 0}}])["error_information"][0]
    assert information["error_information"] == 1 << 2
    assert information["validation_bits"] == 1 << 2


def test_counts_and_lengths_follow_and_can_be_wrong() -> None:
    arm = SAMPLES["arm"]
    assert (arm["error_information_number"], arm["context_information_number"]) == (4, 10)
    assert arm["section_length"] == len(arm.pack())
    wrong = kinds.Arm(error_information_number=9, section_length=1)
    assert (wrong["error_information_number"], wrong["section_length"]) == (9, 1)
    longer = arm.body.replaced(section_length=0xFFFF)
    assert longer["section_length"] == 0xFFFF
    assert longer.values["error_information"] == arm["error_information"]


def test_a_memory_section_of_before_uefi_2_3() -> None:
    """It ends with the error type; Linux takes it."""
    data = SAMPLES["memory"].pack()[:73]
    section = kinds.Memory.parse(data)
    assert section.pack() == data
    assert section["memory_error_type"] == 3
    assert "extended" not in section.body.values
    with pytest.raises(CperError, match="cut short"):
        kinds.Memory.parse(data[:72])


def test_words_are_the_spec_s_in_any_spelling() -> None:
    for words in ("Multi-bit ECC", "multi-bit ecc", "multibitecc", "MULTI_BIT_ECC", "3", "0x3", 3):
        assert kinds.Memory(memory_error_type=words)["memory_error_type"] == 3


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no such field": ({"adress": 1}, "adress: Memory Error Section has no field 'adress'"),
    "no such name": (
        {"memory_error_type": "gremlins"},
        "memory_error_type: 'gremlins' is not a number; its names: 'Unknown'",
    ),
    "too large": ({"node": 0x10000}, "node: 65536 is too large for 'Node', 0xffff is most"),
    "negative": ({"node": -1}, "node: -1 < 0"),
    "no number": ({"node": 1.5}, "node: 1.5 is not a number"),
    "no such bits": ({"bank": {"bnak": 1}}, "bank.bnak: there are no bits 'bnak'"),
    "bits too large": ({"bank": {"bank_group": 256}}, "bank.bank_group: 256 is too large"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_its_field(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(UsageError) as error:
        kinds.Memory(**given)
    assert str(error.value).startswith(message)
    assert len(str(error.value).splitlines()) == 1


def test_faults_deep_inside_have_a_path() -> None:
    with pytest.raises(CperError) as error:
        kinds.Arm(error_information=[{}, {"flags": {"overflow": 2}}])
    assert error.value.field == "error_information[1].flags.overflow"
    with pytest.raises(CperError, match="of this type its bits have no names: give a number"):
        kinds.Arm(error_information=[{"type": 77, "error_information": {"level": 1}}])
    with pytest.raises(CperError, match="it is not a list"):
        kinds.Arm(error_information=b"x")
    for wrong in ("€", "x" * 21):
        with pytest.raises(CperError):
            ENTRY.make({"fru_text": wrong})


def test_a_type_that_nobody_knows_is_bytes() -> None:
    section = kind_of(VENDOR).parse(b"abc")
    assert section["data"] == b"abc"
    assert section.pack() == b"abc"
    assert kind_named(str(VENDOR)).guid == VENDOR
    with pytest.raises(CperError, match="there is no section 'memroy'; there are memory, memory2"):
        kind_named("memroy")


def test_structures_are_compared_by_what_they_say() -> None:
    one, other = kinds.Memory(node=1), kinds.Memory(node=2)
    assert one != other
    assert one.body.replaced(node=2) == other.body
    assert isinstance(one.body, Structure)
