"""JSON of libcper's shape: what is written, what is read, and that nothing is lost between."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.errors import CperError
from qemu_sdei.ras import kinds
from qemu_sdei.ras.block import Block, block, parse_block
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.kinds import RAW, Section
from qemu_sdei.ras.libcper import from_json, to_json
from qemu_sdei.ras.record import Record, parse_record, record
from tests.examples import examples
from tests.ras.samples import SAMPLES, VENDOR, blocks, refusal, whole_records

every_kind = pytest.mark.parametrize("section", SAMPLES.values(), ids=SAMPLES)
MEMORY_ERROR = kinds.Memory(physical_address=0x1000, memory_error_type=3)


def through_text(document: Any) -> Any:
    return json.loads(json.dumps(document))


@settings(max_examples=examples(25, 300))
@given(st.one_of(blocks(), whole_records()))
def test_any_record_comes_back(made: Record | Block) -> None:
    """As it is read: what a user makes need not be as it would be read, where a tail follows."""
    read = parse_block(made.pack()) if isinstance(made, Block) else parse_record(made.pack())
    again = from_json(through_text(to_json(read)))
    assert again == read
    assert again.pack() == made.pack()
    assert from_json(to_json(made)).pack() == made.pack()


@settings(max_examples=examples(25, 300))
@given(st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(0, 255)), max_size=6), st.sampled_from(sorted(SAMPLES)))
def test_bytes_that_words_do_not_say_come_back(changes: list[tuple[int, int]], name: str) -> None:
    """Reserved bits, fields that are not valid, wrong counts: as far as they can be read at all."""
    data = bytearray(block([entry(SAMPLES[name], fru_text="x")]).pack())
    for at, value in changes:
        data[20 + at % (len(data) - 20)] = value
    try:
        made = parse_block(bytes(data))
    except CperError:
        return
    assert from_json(through_text(to_json(made))).pack() == data


@every_kind
def test_a_record_as_it_should_be_needs_no_other_bytes(section: Section) -> None:
    """What libcper's shape says is all of it: readers of that shape lose nothing."""
    made = record([entry(section, fru_text="FRU")])
    document = to_json(made)
    assert "otherBytes" not in json.dumps(document)
    assert from_json(document) == made


def test_the_shape_is_libcpers() -> None:
    """Keys and forms of values, as its files have them."""
    made = record(
        [
            entry(
                kinds.Memory(
                    error_status={"error_type": "ERR_MEM", "data": 1},
                    physical_address=0x41E7_8000,
                    module=2,
                    bank={"bank_address": 1, "bank_group": 2},
                    requestor_id=9,
                    memory_error_type=3,
                    extended={"row_bit_16": True},
                    card_handle=5,
                ),
                "recoverable",
                fru_id=VENDOR,
                fru_text="DIMM",
                flags={"primary": True},
            )
        ],
        timestamp="2026-11-30T12:00:00+00:00",
        record_id=1 << 63,
        notification_type="SEA",
        flags="HW_ERROR_FLAGS_SIMULATED",
    )
    guid = "00000000-0000-0000-0000-000000000000"
    flags = (
        "primary containmentWarning reset errorThresholdExceeded resourceNotAccessible latentError propagated overflow"
    )
    status = (
        "addressSignal controlSignal dataSignal detectedByResponder detectedByRequester firstError overflowDroppedLogs"
    )
    document = to_json(made)
    assert document["sections"][0].pop("message") == "Memory Error Section: Multi-bit ECC, Physical Address 0x41e78000"
    error_type = document["sections"][0]["Memory"]["errorStatus"].pop("errorType")
    assert (error_type["value"], error_type["name"]) == (4, "ERR_MEM")
    assert document == {
        "header": {
            "revision": {"major": 1, "minor": 1},
            "sectionCount": 1,
            "severity": {"code": 0, "name": "Recoverable"},
            "recordLength": 280,
            "timestamp": "2026-11-30T12:00:00+00:00",
            "timestampIsPrecise": False,
            "creatorID": guid,
            "notificationType": {"guid": "9a78788a-bbe8-11e4-809e-67611e5d46b0", "type": "SEA"},
            "recordID": 1 << 63,
            "flags": {"value": 4, "name": "HW_ERROR_FLAGS_SIMULATED"},
            "persistenceInfo": 0,
        },
        "sectionDescriptors": [
            {
                "sectionOffset": 200,
                "sectionLength": 80,
                "revision": {"major": 1, "minor": 0},
                "flags": {name: name == "primary" for name in flags.split()},
                "sectionType": {"data": "a5bc1114-6f64-4ede-b863-3e83ed7c83b1", "type": "Platform Memory"},
                "fruID": str(VENDOR),
                "fruText": "DIMM",
                "severity": {"code": 0, "name": "Recoverable"},
            }
        ],
        "sections": [
            {
                "Memory": {
                    "errorStatus": {name: name == "dataSignal" for name in status.split()},
                    "physicalAddress": 0x41E7_8000,
                    "physicalAddressHex": "0x0000000041E78000",
                    "moduleRank": 2,
                    "bank": {"address": 1, "group": 2},
                    "requestorID": 9,
                    "memoryErrorType": {"value": 3, "name": "Multi-bit ECC"},
                    "extended": {"rowBit16": True, "rowBit17": False},
                    "cardSmbiosHandle": 5,
                }
            }
        ],
    }


def member(section: Section) -> Any:
    """What a section's own member of the JSON says."""
    return to_json(record([entry(section)]))["sections"][0][section.kind.key]


def test_an_arm_section() -> None:
    said = member(SAMPLES["arm"])
    assert (said["errorInfoNum"], said["contextInfoNum"], said["mpidrEl1"]) == (4, 10, 0x8000_0003)
    assert said["running"] is True
    cache, tlb, bus, micro = said["errorInfo"]
    assert cache["errorType"] == {"value": 2, "name": "Cache Error"}
    assert cache["multipleError"] == {"value": 1, "type": "Multiple Errors"}
    assert cache["errorInformation"]["cacheError"]["operation"] == {"value": 7, "name": "Eviction"}
    assert tlb["errorInformation"] == {"tlbError": {"corrected": True, "precisePC": False}}
    assert bus["errorInformation"]["busError"]["addressSpace"] == {"value": 3, "name": "Device Memory Access"}
    assert micro["errorInformation"] == {"microArchError": {"vendorDefined": 0x1234_5678_9ABC_DEF0}}
    contexts = said["contextInfo"]
    assert list(contexts[6]["registerArray"])[:2] == ["elr_el2", "esr_el2"]
    assert contexts[9]["registerArray"] == {"data": base64.b64encode(b"\x01\x02\x03").decode()}
    assert base64.b64decode(said["vendorSpecificInfo"]["data"]) == b"vendor"


def test_a_pcie_section_is_read_by_its_bytes_or_by_names() -> None:
    pcie = SAMPLES["pcie"]
    document = to_json(record([entry(pcie)]))
    aer = document["sections"][0]["Pcie"]["aerInfo"]
    assert aer["uncorrectable_error_status"]["malformed_tlp_status"] is True
    aer["uncorrectable_error_status"]["malformed_tlp_status"] = False
    found = from_json(document)
    assert found.entries[0].section == pcie  # its bytes count
    document["sections"][0]["Pcie"]["deviceID"] |= {"class": "PCI-to-PCI bridge", "slotNumber_Hex": "0x00"}
    del aer["data"]
    changed = from_json(document).entries[0].section["aer_info"]["uncorrectable_error_status"]
    assert changed == 1 << 14
    assert document["sections"][0]["Pcie"]["deviceID"]["vendorID_Hex"] == "0x1B36"


def test_an_error_type_of_libcper_is_read_by_its_own_name() -> None:
    """It has 1, 2 and 4 for what UEFI 2.10 and Linux call 2, 4 and 8."""
    said = {"errorType": {"value": 1, "name": "Cache Error"}, "errorInformation": {"cacheError": {"level": 3}}}
    found = from_json({"sections": [{"ArmProcessor": {"errorInfo": [said], "midrEl1": 0, "affinity3": 0}}]})
    information = found.entries[0].section["error_information"][0]
    assert (information["type"], information["error_information"]) == (1, 3 << 22 | 1 << 2)


def test_a_record_by_hand_needs_no_more_than_its_section() -> None:
    found = from_json(
        {
            "header": {"severity": "Fatal"},
            "sections": [{"Memory": {"physicalAddress": "0x1000", "memoryErrorType": "Multi-bit ECC"}}],
        }
    )
    assert isinstance(found, Record)
    assert found.entries[0].section == MEMORY_ERROR
    assert (found.severity, found.head["record_length"], found.head["section_count"]) == (1, 280, 1)
    made = from_json({"dataEntries": [{"severity": {"code": 1}}], "sections": [{"Memory": {"node": 1}}]})
    assert made == block([entry(kinds.Memory(node=1), "fatal")])


def test_one_section_with_its_descriptor() -> None:
    """As libcper writes them alone."""
    whole = to_json(record([entry(MEMORY_ERROR, "fatal")]))
    alone = {"sectionDescriptor": whole["sectionDescriptors"][0], "section": whole["sections"][0]}
    assert from_json(alone).entries == record([entry(MEMORY_ERROR, "fatal")]).entries


def test_a_type_that_nobody_knows_is_base64() -> None:
    made = record([entry(kinds.raw(VENDOR, b"\x84\x35"))])
    document = to_json(made)
    assert document["sections"][0]["Unknown"] == {"data": "hDU="}
    assert document["sectionDescriptors"][0]["sectionType"] == {"data": str(VENDOR), "type": "Unknown"}
    assert from_json(document) == made
    known = from_json(
        {
            "sectionDescriptors": [{"sectionType": {"data": str(kinds.Memory.guid)}}],
            "sections": [{"Unknown": {"data": base64.b64encode(bytes(10)).decode()}}],
        }
    )
    assert known.entries[0].section.kind.table is RAW


def test_other_bytes_are_said_by_their_place() -> None:
    body = MEMORY_ERROR.body.replaced(validation_bits=1 << 1 | 1 << 60, node=7)  # nor is the error type valid
    made = block([entry(Section(kinds.Memory, body))], raw=b"\xab")
    document = to_json(made)
    assert document["sections"][0]["otherBytes"] == {"0x7": "10", "0x20": "07", "0x48": "03"}
    assert document["rest"] == "qw=="
    document["sections"][0]["Memory"]["physicalAddress"] = 0x2000
    changed = from_json(document).entries[0].section
    assert (changed["physical_address"], changed["node"]) == (0x2000, 7)


def memory(**said: Any) -> dict[str, Any]:
    return {"sections": [{"Memory": said}]}


def test_many_long_sections_are_refused_early() -> None:
    """A few characters of JSON can say a length of a MiB."""
    long = {"Memory": {}, "otherBytes": {"length": 1 << 20}}
    with pytest.raises(CperError) as error:
        from_json({"sections": [long] * 1000})
    assert error.value.field == "sections[1]"


def others(**said: Any) -> dict[str, Any]:
    return {"sections": [{"Memory": {}, "otherBytes": said}]}


REFUSED: dict[str, tuple[Any, str]] = {
    "no object": ([], "it is not an object"),
    "a number": (5, "it is not an object"),
    "no sections": ({"header": {}}, "sections: it is not there"),
    "sections that are none": ({"sections": {}}, "sections: it is not a list"),
    "an unknown member": ({"sections": [], "gremlin": 1}, "there is no 'gremlin' in a record"),
    "an unknown section": ({"sections": [{"Memroy": {}}]}, "sections[0]: 'Memroy' does not say which section it is"),
    "a section with no type": (
        {"sections": [{"CxlComponent": {}}]},
        "sections[0]: 'CxlComponent' does not say which section it is: several types have it",
    ),
    "two sections in one": ({"sections": [{"Memory": {}, "Pcie": {}}]}, "sections[0]: it has not one member"),
    "an unknown field": (memory(adress=1), "sections[0].Memory: there is no 'adress' in a Memory Error Section"),
    "a field of another type": (memory(node=[]), "sections[0].Memory.node: it is not a number"),
    "a number too large": (memory(node=1 << 16), "sections[0].Memory.node: 65536 is too large"),
    "an unknown name": (memory(memoryErrorType="x"), "sections[0].Memory.memory_error_type: 'x' is not a number"),
    "unknown bits": (memory(bank={"address": 1, "x": 2}), "sections[0].Memory.bank: there is no 'x' among its bits"),
    "bits that are none": (memory(bank={"address": []}), "sections[0].Memory.bank.address: it is neither"),
    "a float": (memory(node=1.5), "sections[0].Memory.node: it is not a number"),
    "less heads": (
        {"sections": [{"Memory": {}}], "sectionDescriptors": []},
        "sectionDescriptors: there are 0 of them and 1 sections",
    ),
    "another type": (
        {"sections": [{"Memory": {}}], "sectionDescriptors": [{"sectionType": {"data": str(kinds.Arm.guid)}}]},
        f"sections[0]: a section of type {kinds.Arm.guid} is 'ArmProcessor' and not 'Memory'",
    ),
    "a type of no GUID": (
        {"sections": [{"Memory": {}}], "sectionDescriptors": [{"sectionType": "x"}]},
        "sections[0].sectionDescriptors[0].sectionType: it is not a GUID",
    ),
    "one that only libcper decodes": (
        {"sections": [{"PciBus": {}}], "sectionDescriptors": [{"sectionType": "c5753963-3b84-4095-bf78-eddad3f9c9dd"}]},
        "sections[0]: PCI/PCI-X Bus (c5753963-3b84-4095-bf78-eddad3f9c9dd) has no table here: give its bytes",
    ),
    "a section outside": (
        {"sections": [{"Memory": {}}], "sectionDescriptors": [{"sectionOffset": 9999}]},
        "offset 0x270f, sections[0]: it is not within the record",
    ),
    "too long": (memory() | {"header": {"recordLength": 1 << 31}}, "record_length: a record of 2147483648 bytes"),
    "a bad time": (memory() | {"header": {"timestamp": "soon"}}, "header.timestamp: 'soon' is no time"),
    "no base64": (
        {"sections": [{"Unknown": {"data": "%"}}], "sectionDescriptors": [{"sectionType": str(VENDOR)}]},
        "sections[0].Unknown.data: it is not base64",
    ),
    "an element": (
        {"sections": [{"ArmProcessor": {"errorInfo": [{}, {"flags": 256}]}}]},
        "sections[0].ArmProcessor.error_information[1].flags: 256 is too large",
    ),
    "other bytes that are none": (others(x="y"), "sections[0].otherBytes: it has not only offsets"),
    "a length that is none": (others(length=1 << 30), "sections[0].otherBytes.length: it is not a number of bytes"),
    "an offset below": (others(**{"-1": "00"}), "sections[0].otherBytes: an offset is less than 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_its_path(case: str) -> None:
    document, message = REFUSED[case]
    with pytest.raises(CperError) as error:
        from_json(document)
    assert str(error.value).startswith(message)


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=examples(50, 500))
@given(st.data())
def test_a_value_of_any_kind_anywhere_is_taken_or_refused(data: st.DataObject) -> None:
    chosen = [entry(SAMPLES[data.draw(st.sampled_from(sorted(SAMPLES)))])]
    document = through_text(to_json(block(chosen) if data.draw(st.booleans()) else record(chosen)))
    place: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 5)) == 0:
            place[key] = data.draw(anything)
            break
        place = inner
    refusal(lambda: from_json(document).pack())
