"""One section of each kind, as a user makes it, and strategies for all that a table can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from qemu_sdei.errors import CperError
from qemu_sdei.ras import kinds
from qemu_sdei.ras.block import Block, block
from qemu_sdei.ras.entry import Entry, entry
from qemu_sdei.ras.fields import Field, Kind
from qemu_sdei.ras.items import Choice, Extent, Many, Part
from qemu_sdei.ras.kinds import KINDS, Section
from qemu_sdei.ras.record import Record, record
from qemu_sdei.ras.severity import Severity
from qemu_sdei.ras.structure import Structure, Table

VENDOR = UUID("8d3c1c7e-5f0a-4b0e-9d62-1a2b3c4d5e6f")
SAMPLES: Mapping[str, Section] = {
    section.kind.name: section
    for section in (
        kinds.Memory(
            error_status={"error_type": "ERR_MEM", "first_error": True},
            physical_address=0x41E7_8000,
            physical_address_mask=0xFFFF_FFFF_FFFF_F000,
            node=0,
            card=1,
            module=2,
            bank={"bank_group": 1, "bank_address": 2},
            memory_error_type="Multi-bit ECC",
            extended={"row_bit_16": 1, "chip_identification": 5},
        ),
        kinds.Memory2(physical_address=0x1000, bank=7, row=70_000, status="Uncorrected", memory_error_type=2),
        kinds.Arm(
            mpidr_el1=0x8000_0003,
            midr_el1=0x410F_D083,
            error_affinity_level=1,
            running_state={"running": True},
            error_information=[
                {
                    "type": "Cache Error",
                    "multiple_error": 1,
                    "flags": {"first_error_captured": True},
                    "error_information": {"transaction_type": "Generic", "operation": "Eviction", "level": 2},
                    "virtual_fault_address": 0xFFFF_8000_0000_1000,
                },
                {"type": "TLB Error", "error_information": {"corrected": True, "precise_pc": False}},
                {"type": "Bus Error", "error_information": {"address_space": 3, "timed_out": True}},
                {"type": "Micro-Architectural Error", "error_information": 0x1234_5678_9ABC_DEF0},
            ],
            context_information=[
                *({"register_context_type": kind, "register_array": {}} for kind in range(8)),
                {"register_context_type": 8, "register_array": {"mrs_encoding": {"op2": 1, "o0": 1}, "value": 9}},
                {"register_context_type": 77, "register_array": b"\x01\x02\x03"},
            ],
            vendor_specific_information=b"vendor",
        ),
        kinds.ArmRas(
            component_type="SMMUErrorNode",
            ip_instance_format="SystemPhysicalAddress",
            ip_instance={"system_physical_address": 0x0905_0000},
            ip_type_format="PIDR",
            ip_type={"pidr0": 0x83},
            user_data="SMMU 0",
            error_syndromes=[{"error_record_index": 1, "err_status": 1 << 30}, {"ras_extension_revision": 0x10}],
            auxiliary_data={
                "contexts": [
                    {
                        "flags": {"address_space_identifier_scope": 1},
                        "address_space_identifier": 3,
                        "registers": [{"register_address": 8, "register_value": 9}],
                    }
                ],
                "key_value_pairs": [{"key": VENDOR, "value": 5}],
            },
        ),
        kinds.Processor(
            processor_type="ARM", processor_isa=4, flags={"restartable": 1}, cpu_brand_string="Neoverse N1", level=1
        ),
        kinds.Pcie(
            port_type="Root Port",
            version={"major": 4, "minor": 1},
            command_status={"command_register": 0x507},
            device_id={"vendor_id": 0x1B36, "device_id": 0xC, "class_code": 0x060400, "device_number": 1},
            device_serial_number=1,
            capability_structure={"device_status": {"fatal_error_detected": True}},
            aer_info={"uncorrectable_error_status": {"malformed_tlp": 1, "completion_timeout": 1}},
        ),
        kinds.Firmware(firmware_error_record_type=2, record_identifier_guid=VENDOR),
        kinds.CxlProtocol(
            cxl_agent_type="CXL Root Port",
            cxl_agent_address={"bus_number": 0x35, "device_number": 1},
            device_id={"vendor_id": 0x8086},
            cxl_dvsec=bytes(range(60)),
            cxl_error_log={"uncorrectable_error_status": {"receiver_overflow": True}},
        ),
        kinds.CxlGeneralMedia(
            device_id={"bus_number": 1, "segment_number": 2},
            cxl_component_event_log={"event_physical_address": 0x4000, "memory_event_type": "Data Path Error"},
        ),
        kinds.CxlDram(cxl_component_event_log={"row": 5, "correction_mask": bytes(32)}),
        kinds.CxlMemoryModule(device_serial_number=7, cxl_component_event_log={"life_used": 90}),
        kinds.CxlPhysicalSwitch(cxl_component_event_log={"event_data": bytes(80)}),
        kinds.CxlVirtualSwitch(cxl_component_event_log={"event_record_handle": 1}),
        kinds.CxlMldPort(cxl_component_event_log=b"short"),
    )
}


def sample_entries() -> list[Entry]:
    """An entry for each sample, and one of a type that nobody knows."""
    entries = [entry(each, "recoverable", fru_text=name[:20]) for name, each in SAMPLES.items()]
    return [*entries, entry(kinds.raw(VENDOR, b"\x00\x01\x02"), "corrected", timestamp="2026-11-30T12:34:56Z")]


def numbers(bits: int) -> st.SearchStrategy[int]:
    """Numbers of so many bits, small ones and large ones as often as all others."""
    return st.one_of(st.integers(0, min(9, (1 << bits) - 1)), st.integers(0, (1 << bits) - 1), st.just((1 << bits) - 1))


def plain_values(item: Field) -> st.SearchStrategy[Any]:
    """What a field can be."""
    if item.kind is Kind.NUMBER:
        if item.names:
            return st.one_of(st.sampled_from(sorted(item.names)), numbers(8 * item.size))
        return numbers(8 * item.size)
    if item.kind is Kind.GUID:
        return st.one_of(st.sampled_from([VENDOR]), st.binary(min_size=16, max_size=16).map(lambda b: UUID(bytes_le=b)))
    if item.kind is Kind.TEXT:
        text = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs")), max_size=item.size)
        return st.one_of(text, st.binary(min_size=item.size, max_size=item.size))
    if item.kind is Kind.TIMESTAMP:
        return st.one_of(
            st.datetimes().map(lambda moment: moment.replace(microsecond=0)),
            st.binary(min_size=item.size, max_size=item.size),
        )
    return st.binary(min_size=item.size, max_size=item.size)


@st.composite
def given_values(draw: st.DrawFn, table: Table) -> dict[str, Any]:
    """What `Table.make` takes: some of its fields, reserved ones too; counts and lengths are left to it."""
    given: dict[str, Any] = {}
    for item in table.items:
        wanted = draw(st.integers(0, 3))
        if not wanted or getattr(item, "auto", None) is not None or getattr(item, "hidden", False):
            continue
        if isinstance(item, Field):
            if item.name == table.validity and wanted > 1:
                continue
            given[item.name] = draw(plain_values(item))
        elif isinstance(item, Many):
            given[item.name] = draw(st.lists(given_values(item.table), max_size=2))
        elif isinstance(item, Part):
            given[item.name] = draw(given_values(item.table))
        else:
            given[item.name] = draw(_bytes_or_structure(item, given))
    return given


def _bytes_or_structure(item: Extent, given: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    table = item.table_for({item.by: 0, **given}) if isinstance(item, Choice) else None
    most = item.size or (40 if table is None else table.fixed_size - 1)  # more are a structure, or damaged
    data = st.binary(min_size=item.size, max_size=most)
    return data if table is None else st.one_of(data, given_values(table))


@st.composite
def sections(draw: st.DrawFn) -> Section:
    """Any section that can be made."""
    kind = draw(st.sampled_from(sorted(KINDS.values(), key=lambda each: each.name)))
    given = draw(given_values(kind.table))
    takes_all = any(isinstance(item, Extent) and item.takes_all and item.name in given for item in kind.table.items)
    tail = b"" if takes_all else draw(st.sampled_from([b"", b"", b"\x00", b"tail"]))
    return Section(kind, kind.table.make(given, tail=tail))


def entries() -> st.SearchStrategy[list[Entry]]:
    """Entries of any sections."""
    unknown = st.binary(max_size=40).map(lambda data: kinds.raw(VENDOR, data))
    each = st.builds(
        entry,
        st.one_of(sections(), unknown),
        st.sampled_from(Severity),
        fru_text=st.sampled_from([None, "DIMM A1", "x" * 20]),
        fru_id=st.sampled_from([None, VENDOR]),
        flags=numbers(8),
        revision=st.sampled_from([0x300, 0x201]),
    )
    return st.lists(each, max_size=3)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """Any status block."""
    return block(draw(entries()), draw(st.sampled_from([None, *Severity])), raw=draw(st.binary(max_size=8)))


@st.composite
def whole_records(draw: st.DrawFn) -> Record:
    """Any whole record."""
    return record(draw(entries()), draw(st.sampled_from([None, *Severity])), record_id=draw(numbers(64)))


def parts_of(table: Table) -> set[Table]:
    """A table and all that is in it."""
    found = {table}
    for item in table.items:
        inner = (
            item.tables.values() if isinstance(item, Choice) else [item.table] if isinstance(item, Many | Part) else []
        )
        for each in inner:
            found |= parts_of(each)
    return found


def structures(structure: Structure) -> list[Structure]:
    """A structure and all that is in it."""
    found = [structure]
    for value in structure.values.values():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Structure):
                found += structures(each)
    return found


def refusal(action: Callable[[], object]) -> CperError | None:
    """The error that an action ends with; None: it ends well. Any other error is the test's."""
    try:
        action()
    except CperError as error:
        return error
    return None
