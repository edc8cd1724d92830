"""One of each kind of table, every field with a value of its own."""

from __future__ import annotations

from qemu_sdei.acpi.table import Oem, Table
from qemu_sdei.acpi.tables.agdi import Agdi
from qemu_sdei.acpi.tables.bert import Bert
from qemu_sdei.acpi.tables.einj import Einj, EinjAction, EinjEntry, EinjInstruction
from qemu_sdei.acpi.tables.erst import Erst, ErstAction, ErstEntry, ErstInstruction
from qemu_sdei.acpi.tables.fadt import SIZES, Fadt
from qemu_sdei.acpi.tables.gas import Gas
from qemu_sdei.acpi.tables.gtdt import GtBlock, Gtdt, TimerFrame, Watchdog
from qemu_sdei.acpi.tables.hest import (
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
from qemu_sdei.acpi.tables.madt import Gicc, Gicd, GicIts, GicMsiFrame, Gicr, IoApic, LocalApic, Madt, SourceOverride
from qemu_sdei.acpi.tables.raw import RawTable
from qemu_sdei.acpi.tables.root import Rsdp, Rsdt, Xsdt
from qemu_sdei.acpi.tables.sdei import Sdei
from qemu_sdei.acpi.tables.srat import GiccAffinity, ItsAffinity, MemoryAffinity, Srat, X2ApicAffinity

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


MADT = Madt(
    oem=OEM, revision=5,
    controllers=(
        Gicd(base=0x800_0000, version=3),
        *(
            Gicc(present=80, interface=n, uid=n, flags=1 + 8 * n - n, performance_interrupt=23, mpidr=0x100 * n,
                 maintenance_interrupt=25, efficiency=n, spe_interrupt=21)
            for n in range(2)
        ),
        Gicr(base=0x80A_0000, range_length=0xF6_0000),
        GicIts(its_id=1, base=0x808_0000),
        GicMsiFrame(frame_id=1, base=0x802_0000, flags=1, spi_count=64, spi_base=80),
    ),
)  # fmt: skip
"""Of an Arm machine; the second CPU is one that may come later."""
MADT_X86 = Madt(
    oem=OEM, revision=3, local_apic=0xFEE0_0000, flags=1,
    controllers=(
        LocalApic(uid=1, apic_id=2, flags=1), IoApic(apic_id=3, address=0xFEC0_0000),
        SourceOverride(source=9, gsi=9, flags=0xD),
    ),
)  # fmt: skip
GTDT = Gtdt(
    oem=OEM, control_base=0xFFFF_FFFF_FFFF_FFFF, secure_el1_interrupt=29, secure_el1_flags=4, el1_interrupt=30,
    el1_flags=6, virtual_interrupt=27, el2_interrupt=26, read_base=0xFFFF_FFFF_FFFF_FFFF, timer_count=2,
    timer_offset=104, el2_virtual_interrupt=28,
    timers=(
        GtBlock(
            base=0x2A81_0000, timer_count=2,
            rest=b"".join(
                TimerFrame(number=n, base=0x2A82_0000 + n, physical_interrupt=57 + n, common_flags=n).pack()
                for n in range(2)
            ),
        ),
        Watchdog(refresh_frame=0x2A45_0000, control_frame=0x2A44_0000, interrupt=59, flags=1),
    ),
)  # fmt: skip
SRAT = Srat(
    oem=OEM,
    affinities=(
        MemoryAffinity(domain=0, base=0x8000_0000, size=0x8000_0000, flags=1),
        MemoryAffinity(domain=1, base=0x88_0000_0000, size=0x8_0000_0000, flags=3),
        GiccAffinity(domain=0, uid=0, flags=1), GiccAffinity(domain=1, uid=1, flags=1, clock_domain=1),
        ItsAffinity(domain=1, its_id=1), X2ApicAffinity(domain=1, apic_id=256, flags=1),
    ),
)  # fmt: skip
EINJ = Einj(
    oem=OEM, entry_count=8,
    entries=tuple(
        EinjEntry(
            action=number, instruction=EinjInstruction.WRITE_REGISTER_VALUE, flags=number & 1,
            register=Gas.memory(0x4003_0000 + 8 * number), value=number, mask=0xFF,
        )
        for number in EinjAction
        if number < EinjAction.SET_ERROR_TYPE_WITH_ADDRESS
    ),
)  # fmt: skip
ERST = Erst(
    oem=OEM, entry_count=15,
    entries=tuple(
        ErstEntry(
            action=number, instruction=ErstInstruction.READ_REGISTER, register=Gas.memory(0x4004_0000 + 8 * number),
            mask=0xFFFF_FFFF,
        )
        for number in ErstAction
        if number < ErstAction.GET_EXECUTE_OPERATION_TIMINGS
    ),
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
    "MADT": MADT,
    "MADT-x86": MADT_X86,
    "GTDT": GTDT,
    "GTDT-2": Gtdt(oem=OEM, revision=2, size=96, el1_interrupt=30, virtual_interrupt=27),
    "SRAT": SRAT,
    "EINJ": EINJ,
    "ERST": ERST,
    "DSDT": RawTable.build("DSDT", b"\x08X000\x0c\x78\x56\x34\x12", revision=2, oem=OEM),
    "FACS": RawTable(data=b"FACS" + (64).to_bytes(4, "little") + bytes(24) + b"\x02" + bytes(31)),
}
