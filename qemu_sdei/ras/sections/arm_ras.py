"""Errors of an Arm RAS node (Arm DEN0085, revision 1 of the section)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.ras.declare import bit, bits, guid, key, octets, reserved, text, u8, u16, u32, word, x32, x64
from qemu_sdei.ras.fields import Auto, Json
from qemu_sdei.ras.items import Choice, Extent, Many
from qemu_sdei.ras.structure import Table

_RAW: Final = Json(value="raw", word="value")
_UNSAID: Final = Json(unsaid=True)
_HEX: Final = Json(hexadecimal=True)


def _hex(name: str) -> Json:
    return Json(key=name, hexadecimal=True)


COMPONENTS: Final = {
    0: "ProcessorErrorNode",
    1: "MemoryErrorNode",
    2: "SMMUErrorNode",
    3: "VendorDefinedErrorNode",
    4: "GICErrorNode",
    5: "PciExpressErrorNode",
    6: "ProxyErrorNode",
}

_INSTANCES: Final = {
    0: Table("arm-ras-pe", "PE", (x64("MPIDR_EL1", json=_hex("mpidrEl1")), reserved(8))),
    1: Table("arm-ras-address", "System Physical Address", (x64("System Physical Address", json=_HEX), reserved(8))),
    2: Table(
        "arm-ras-local",
        "Local Address Identifier",
        (x64("Local Address Identifier", json=_HEX), x64("Base Address", json=_HEX)),
    ),
    3: Table("arm-ras-soc", "SoC Specific", (octets(16, "SoC Specific IP Identifier"),)),
}
_TYPES: Final = {
    0: Table(
        "arm-ras-midr",
        "PE",
        (
            x64("MIDR_EL1", json=_hex("midrEl1")),
            x64("REVIDR_EL1", json=_hex("revidrEl1")),
            x64("AIDR_EL1", json=_hex("aidrEl1")),
        ),
    ),
    1: Table("arm-ras-smmu", "SMMU", (x32("IIDR", json=_HEX), x32("AIDR", json=_HEX), reserved(16))),
    2: Table("arm-ras-gic", "GIC", (x32("IIDR", json=_HEX), x32("AIDR", json=_HEX), reserved(16))),
    3: Table(
        "arm-ras-pidr",
        "Peripheral Identification",
        (*(u8(f"PIDR{n}", hexadecimal=True, json=_HEX) for n in (3, 2, 1, 0, 7, 6, 5, 4)), reserved(16)),
    ),
}

DESCRIPTOR: Final = Table(
    "arm-ras-error-record",
    "Arm RAS Error Record",
    (
        u32("Error Record Index"),
        u8(
            "RAS Extension Revision",
            word=word(
                bits(0, 3, "Architecture Version", json=key("rasExtensionArchVersion")),
                bits(4, 7, "Revision", json=key("rasExtensionRevisionField")),
            ),
            json=Json(flat=True),
        ),
        reserved(3),
        x64("ERR_FR", json=_hex("errorRecordFeatureRegister")),
        x64("ERR_CTLR", json=_hex("errorRecordControlRegister")),
        x64("ERR_STATUS", json=_hex("errorRecordPrimaryStatusRegister")),
        x64("ERR_ADDR", json=_hex("errorRecordAddressRegister")),
        *(x64(f"ERR_MISC{n}", json=_hex(f"errorRecordMiscRegister{n}")) for n in range(2)),
        *(
            x64(
                f"ERR_MISC{n}",
                json=Json(key=f"errorRecordMiscRegister{n}", hexadecimal=True, when="ras_extension_revision"),
            )
            for n in (2, 3)
        ),
    ),
    source="DEN0085 table 21",
)

REGISTER: Final = Table(
    "arm-ras-register",
    "Memory Mapped Register",
    (x64("Register Address", json=_hex("address")), x64("Register Value", json=_hex("value"))),
    source="DEN0085 table 24",
)
CONTEXT: Final = Table(
    "arm-ras-context",
    "Auxiliary Context",
    (
        u32("Length", auto=Auto("end"), json=_UNSAID),
        u8(
            "Flags",
            word=word(
                bit(
                    0,
                    "Address Space Identifier Scope",
                    names={0: "SystemPhysicalAddressSpace", 1: "LocalAddressSpace"},
                    json=Json(word_only=True),
                )
            ),
        ),
        reserved(1),
        u16("Register Array Entry Count", auto=Auto("count", "registers"), json=_UNSAID),
        u16("Address Space Identifier", json=Json(when="flags")),
        reserved(6, "Reserved 2"),
        Many(title="Registers", table=REGISTER, count="register_array_entry_count"),
        Extent(title="Padding", length="length", from_start=True, hidden=True),
    ),
    source="DEN0085 table 23",
)
PAIR: Final = Table(
    "arm-ras-pair",
    "Key Value Pair",
    (guid("Key"), x64("Value", json=Json(key="value", hexadecimal=True, also=("mpamPartId",)))),
    source="DEN0085 tables 25 and 26",
)
AUXILIARY: Final = Table(
    "arm-ras-auxiliary",
    "Auxiliary Data",
    (
        u8("Version", default=1),
        reserved(1),
        u16("Address Space Array Entry Count", auto=Auto("count", "contexts"), json=_UNSAID),
        u32("Auxiliary Data Size", auto=Auto("end"), json=_UNSAID),
        u32("Key Value Pair Array Offset", auto=Auto("offset", "key_value_pairs"), json=_UNSAID),
        u16("Key Value Pair Array Entry Count", auto=Auto("count", "key_value_pairs"), json=_UNSAID),
        reserved(2, "Reserved 2"),
        Many(title="Contexts", table=CONTEXT, count="address_space_array_entry_count"),
        Extent(title="Gap", length="key_value_pair_array_offset", from_start=True, hidden=True),
        Many(title="Key Value Pairs", table=PAIR, count="key_value_pair_array_entry_count"),
        Extent(title="Padding", length="auxiliary_data_size", from_start=True, hidden=True),
    ),
    source="DEN0085 table 22",
)

ARM_RAS: Final = Table(
    "arm-ras",
    "Arm RAS Node Section",
    (
        u32("Revision", default=1),
        u8("Component Type", names=COMPONENTS, json=_RAW),
        reserved(3),
        u32("Error Syndrome Array Num Entries", auto=Auto("count", "error_syndromes")),
        u16("Error Syndrome Array Offset", auto=Auto("offset", "error_syndromes"), json=_UNSAID),
        u16("Auxiliary Data Offset", auto=Auto("offset", "auxiliary_data"), json=_UNSAID),
        u8(
            "IP Instance Format",
            names={0: "PE", 1: "SystemPhysicalAddress", 2: "LocalAddressIdentifier", 3: "SocSpecificIpIdentifier"},
            json=_RAW,
        ),
        u8("IP Type Format", names={0: "PE", 1: "SMMU_IIDR", 2: "GIC_IIDR", 3: "PIDR"}, json=_RAW),
        reserved(6, "Reserved 2"),
        Choice(title="IP Instance", by="ip_instance_format", tables=_INSTANCES, size=16),
        Choice(title="IP Type", by="ip_type_format", tables=_TYPES, size=24),
        text(16, "User Data"),
        Extent(title="Gap", length="error_syndrome_array_offset", from_start=True, hidden=True),
        Many(title="Error Syndromes", table=DESCRIPTOR, count="error_syndrome_array_num_entries"),
        Extent(
            title="Gap 2", length="auxiliary_data_offset", from_start=True, hidden=True, when="auxiliary_data_offset"
        ),
        Choice(title="Auxiliary Data", tables={0: AUXILIARY}, when="auxiliary_data_offset", json=key("auxData")),
    ),
    source="DEN0085 table 20",
)
