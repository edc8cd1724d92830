"""One of each kind of table, every field with a value of its own."""

from __future__ import annotations

from acpi.table import Oem, Table
from acpi.tables.agdi import Agdi
from acpi.tables.bert import Bert
from acpi.tables.fadt import SIZES, Fadt
from acpi.tables.gas import Gas
from acpi.tables.hest import (
    AerBridge,
    AerEndpoint,
    AerRootPort,
    CorrectedMachineCheck,
    DeferredMachineCheck,
    Ghes,
    GhesV2,
    Hest,
    MachineCheck,
    MachineCheckBank,
    NmiSource,
    Notification,
    NotificationType,
)
from acpi.tables.raw import RawTable
from acpi.tables.root import Rsdp, Rsdt, Xsdt
from acpi.tables.sdei import Sdei

OEM = Oem(b"ACME", b"BOARD", 0x2026, b"TEST", 7)

BANKS = tuple(
    MachineCheckBank(
        number=number, clear_status=1, data_format=2, control_register=0x400 + number, control_data=0x11 << 56,
        status_register=0x401, address_register=0x402, misc_register=0x403,
    )
    for number in range(2)
)  # fmt: skip

SOURCES = (
    MachineCheck(source_id=0, enabled=1, global_capability=5, global_control=6, banks=BANKS),
    CorrectedMachineCheck(
        source_id=1, enabled=1, notification=Notification(type=NotificationType.CMCI), banks=BANKS[:1]
    ),
    NmiSource(source_id=2, records=2, max_sections=3, max_raw_length=4),
    AerRootPort(source_id=3, flags=1, enabled=1, device_control=7, root_error_command=9),
    AerEndpoint(source_id=4, flags=1, enabled=1, bus=0x0001_0200, device=3, function=1, uncorrectable_mask=2),
    AerBridge(source_id=5, enabled=1, secondary_mask=1, secondary_severity=2, secondary_capabilities=3),
    Ghes(
        source_id=6, max_raw_length=4096, block_length=4096, error_status_address=Gas.memory(0x4000_0000),
        notification=Notification.sdei(0x100),
    ),
    GhesV2(
        source_id=7, max_raw_length=4096, block_length=4096, error_status_address=Gas.memory(0x4001_0000),
        notification=Notification.sdei(0x101), read_ack=Gas.memory(0x4001_0008),
    ),
    DeferredMachineCheck(
        source_id=8, enabled=1, notification=Notification(type=NotificationType.LOCAL_INTERRUPT, vector=0xF4)
    ),
)  # fmt: skip

HEST = Hest(oem=OEM, sources=SOURCES)
FADT = Fadt(oem=OEM, minor_version=5, preferred_pm_profile=4, flags=0x10_0000, arm_boot_arch=1, x_dsdt=0x4100_0000)


def fixed_hardware(revision: int) -> Fadt:
    """The FADT of a machine of old."""
    return Fadt(
        oem=OEM, revision=revision, size=SIZES[revision], dsdt=0x4100_0000, firmware_ctrl=0x4200_0000, sci_int=9,
        pm1a_evt_blk=0x400, pm1a_cnt_blk=0x404, pm_tmr_blk=0x408, pm1_evt_len=4, pm1_cnt_len=2, pm_tmr_len=4,
    )  # fmt: skip


TABLES: dict[str, Table] = {
    "SDEI": Sdei(oem=OEM),
    "HEST": HEST,
    "HEST-empty": Hest(oem=OEM),
    "AGDI-sdei": Agdi.by_sdei(0x1FF, oem=OEM),
    "AGDI-interrupt": Agdi.by_interrupt(77, oem=OEM),
    "BERT": Bert(oem=OEM, region_length=4096, region_address=0x4002_0000),
    "FADT-6": FADT,
    "FADT-5": FADT.replace(revision=5, size=SIZES[5], minor_version=1),
    "FADT-3": fixed_hardware(3),
    "FADT-1": fixed_hardware(1),
    "XSDT": Xsdt(oem=OEM, entries=(0x4100_1000, 0x1_4100_2000)),
    "RSDT": Rsdt(oem=OEM, entries=(0x4100_1000, 0x4100_2000)),
    "RSDP-2": Rsdp(oem=OEM, xsdt_address=0x4100_3000),
    "RSDP-0": Rsdp(oem=OEM, revision=0, rsdt_address=0x4100_3000),
    "DSDT": RawTable.build("DSDT", b"\x08X000\x0c\x78\x56\x34\x12", revision=2, oem=OEM),
    "FACS": RawTable(data=b"FACS" + (64).to_bytes(4, "little") + bytes(24) + b"\x02" + bytes(31)),
}
