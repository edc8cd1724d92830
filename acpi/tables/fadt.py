"""FADT (signature FACP): the machine's fixed features, and by which instruction PSCI is called (ACPI 6.5 5.2.9)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.layout import FieldValue, flags, layout, octets, part, u8, u16, u32, u64
from qemu_sdei.acpi.table import HEADER_SIZE, Header, Table
from qemu_sdei.acpi.tables.gas import Gas

SIZES: Final = {1: 116, 3: 244, 4: 244, 5: 268, 6: 276}
"""Bytes of the table by major revision. (Revision 2 was never in a released specification; some tables have it.)"""
MIN_SIZE: Final = 116
HW_REDUCED_ACPI: Final = 1 << 20
"""In `flags`."""
PSCI_COMPLIANT: Final = 1 << 0
PSCI_USE_HVC: Final = 1 << 1
"""In `arm_boot_arch`."""

_PROFILES: Final = {
    0: "unspecified", 1: "desktop", 2: "mobile", 3: "workstation", 4: "enterprise server", 5: "SOHO server",
    6: "appliance PC", 7: "performance server", 8: "tablet",
}  # fmt: skip
_FLAGS = flags(
    {0: "WBINVD", 1: "WBINVD_FLUSH", 2: "PROC_C1", 3: "P_LVL2_UP", 4: "PWR_BUTTON", 5: "SLP_BUTTON", 6: "FIX_RTC",
     7: "RTC_S4", 8: "TMR_VAL_EXT", 9: "DCK_CAP", 10: "RESET_REG_SUP", 11: "SEALED_CASE", 12: "HEADLESS",
     13: "CPU_SW_SLP", 14: "PCI_EXP_WAK", 15: "USE_PLATFORM_CLOCK", 16: "S4_RTC_STS_VALID",
     17: "REMOTE_POWER_ON_CAPABLE", 18: "FORCE_APIC_CLUSTER_MODEL", 19: "FORCE_APIC_PHYSICAL_DESTINATION_MODE",
     20: "HW_REDUCED_ACPI", 21: "LOW_POWER_S0_IDLE_CAPABLE", 22: "PERSISTENT_CPU_CACHES (low)",
     23: "PERSISTENT_CPU_CACHES (high)"}
)  # fmt: skip
_X86_BOOT = flags(
    {0: "LEGACY_DEVICES", 1: "8042", 2: "VGA not present", 3: "MSI not supported", 4: "no PCIe ASPM control",
     5: "CMOS RTC not present"}
)  # fmt: skip
_ARM_BOOT = flags({0: "PSCI_COMPLIANT", 1: "PSCI_USE_HVC"})


def _profile(value: int) -> str:
    return _PROFILES.get(value, "reserved")


def _minor(value: int) -> str:
    errata = f", errata {chr(ord('A') + (value >> 4) - 1)}" if value >> 4 else ""
    return f"minor version {value & 0xF}{errata}"


@dataclass(frozen=True, kw_only=True)
class Fadt(Table):
    """All fields of revisions 1 to 6 (116, 244, 268, 276 bytes and between): `size` says how much of it there is;
    `replace(psci_compliant=, psci_use_hvc=, hardware_reduced=, ...)`.
    """

    SIGNATURE: ClassVar[str] = "FACP"
    REVISIONS: ClassVar[tuple[int, int]] = (1, 6)
    ONCE: ClassVar[bool] = True

    revision: int = 6
    size: int = SIZES[6]
    """Bytes of the table, header included; fields behind it are 0 and are not there."""

    firmware_ctrl: int = u32("FIRMWARE_CTRL (FACS Address)")
    dsdt: int = u32("DSDT Address")
    int_model: int = u8("Model")
    """INT_MODEL of ACPI 1.0; reserved since."""
    preferred_pm_profile: int = u8("PM Profile", words=_profile)
    sci_int: int = u16("SCI Interrupt")
    smi_cmd: int = u32("SMI Command Port")
    acpi_enable: int = u8("ACPI Enable Value")
    acpi_disable: int = u8("ACPI Disable Value")
    s4bios_req: int = u8("S4BIOS Command")
    pstate_cnt: int = u8("P-State Control")
    pm1a_evt_blk: int = u32("PM1A Event Block Address")
    pm1b_evt_blk: int = u32("PM1B Event Block Address")
    pm1a_cnt_blk: int = u32("PM1A Control Block Address")
    pm1b_cnt_blk: int = u32("PM1B Control Block Address")
    pm2_cnt_blk: int = u32("PM2 Control Block Address")
    pm_tmr_blk: int = u32("PM Timer Block Address")
    gpe0_blk: int = u32("GPE0 Block Address")
    gpe1_blk: int = u32("GPE1 Block Address")
    pm1_evt_len: int = u8("PM1 Event Block Length")
    pm1_cnt_len: int = u8("PM1 Control Block Length")
    pm2_cnt_len: int = u8("PM2 Control Block Length")
    pm_tmr_len: int = u8("PM Timer Block Length")
    gpe0_blk_len: int = u8("GPE0 Block Length")
    gpe1_blk_len: int = u8("GPE1 Block Length")
    gpe1_base: int = u8("GPE1 Base Offset")
    cst_cnt: int = u8("_CST Support")
    p_lvl2_lat: int = u16("C2 Latency")
    p_lvl3_lat: int = u16("C3 Latency")
    flush_size: int = u16("CPU Cache Size")
    flush_stride: int = u16("Cache Flush Stride")
    duty_offset: int = u8("Duty Cycle Offset")
    duty_width: int = u8("Duty Cycle Width")
    day_alrm: int = u8("RTC Day Alarm Index")
    mon_alrm: int = u8("RTC Month Alarm Index")
    century: int = u8("RTC Century Index")
    iapc_boot_arch: int = u16("Boot Flags (x86)", words=_X86_BOOT)
    reserved: int = u8("Reserved")
    flags: int = u32("Flags", words=_FLAGS)
    reset_reg: Gas = part(Gas, "Reset Register")
    reset_value: int = u8("Value to cause reset")
    arm_boot_arch: int = u16("ARM_BOOT_ARCH", words=_ARM_BOOT)
    """Offset 129. Two reserved bytes before ACPI 5.1."""
    minor_version: int = u8("FADT Minor Version", words=_minor)
    """Offset 131: minor version in bits 3:0, errata in 7:4. Reserved before ACPI 5.1."""
    x_firmware_ctrl: int = u64("X_FIRMWARE_CTRL (FACS Address)")
    x_dsdt: int = u64("X_DSDT Address")
    x_pm1a_evt_blk: Gas = part(Gas, "PM1A Event Block")
    x_pm1b_evt_blk: Gas = part(Gas, "PM1B Event Block")
    x_pm1a_cnt_blk: Gas = part(Gas, "PM1A Control Block")
    x_pm1b_cnt_blk: Gas = part(Gas, "PM1B Control Block")
    x_pm2_cnt_blk: Gas = part(Gas, "PM2 Control Block")
    x_pm_tmr_blk: Gas = part(Gas, "PM Timer Block")
    x_gpe0_blk: Gas = part(Gas, "GPE0 Block")
    x_gpe1_blk: Gas = part(Gas, "GPE1 Block")
    sleep_control_reg: Gas = part(Gas, "Sleep Control Register")
    """From revision 5 on."""
    sleep_status_reg: Gas = part(Gas, "Sleep Status Register")
    hypervisor_vendor: bytes = octets(8, "Hypervisor Vendor Identity")
    """From revision 6 on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.size, int) or not MIN_SIZE <= self.size <= SIZES[6]:
            raise TableError(
                f"a size of {self.size!r} bytes; {MIN_SIZE} to {SIZES[6]} can be", signature="FACP", field="size"
            )
        packed, cut = self.pack(), self.size - HEADER_SIZE
        for item in layout(type(self)):
            end = item.offset + item.size
            if end > cut and any(packed[max(item.offset, cut) : end]):
                raise TableError(
                    f"a table of {self.size} bytes has no such field: it ends at {HEADER_SIZE + end}",
                    signature="FACP", offset=HEADER_SIZE + item.offset, field=item.name,
                )  # fmt: skip

    def body(self) -> bytes:
        """The fields, as far as the table goes."""
        return self.pack()[: self.size - HEADER_SIZE]

    @classmethod
    def _from_body(cls, data: bytes, header: Header) -> Self:
        if len(data) < MIN_SIZE:
            raise TableError(
                f"cut short: no FADT has less than {MIN_SIZE} bytes, this one {len(data)}",
                signature="FACP", offset=4, field="length",
            )  # fmt: skip
        full = data[: SIZES[6]].ljust(SIZES[6], b"\0")
        values: dict[str, Any] = cls.read(full, HEADER_SIZE, signature="FACP")
        return cls(
            revision=header.revision, oem=header.oem, size=min(len(data), SIZES[6]), tail=data[SIZES[6] :], **values
        )

    def body_fields(self) -> Iterator[FieldValue]:
        """The fields that are there."""
        for each in self.walk(HEADER_SIZE):
            if each.offset + each.size <= self.size:
                yield each

    @property
    def psci_compliant(self) -> bool:
        """Whether the machine has PSCI."""
        return bool(self.arm_boot_arch & PSCI_COMPLIANT)

    @property
    def psci_use_hvc(self) -> bool:
        """Whether PSCI, and with it SDEI, is called by HVC; else by SMC."""
        return bool(self.arm_boot_arch & PSCI_USE_HVC)

    @property
    def hardware_reduced(self) -> bool:
        """Whether the machine has no fixed ACPI hardware."""
        return bool(self.flags & HW_REDUCED_ACPI)

    def replace(
        self,
        *,
        psci_compliant: bool | None = None,
        psci_use_hvc: bool | None = None,
        hardware_reduced: bool | None = None,
        **fields: Any,
    ) -> Self:
        """The same table with these bits and `fields` (attributes of this class) changed.

        Raises:
            TableError: there is no such field, the value does not fit, or the table ends before it.
        """
        known = {each.name for each in dataclasses.fields(self)}
        for name in fields:
            if name not in known:
                raise TableError("there is no such field", signature="FACP", field=name)
        for name, wanted, mask in (
            ("arm_boot_arch", psci_compliant, PSCI_COMPLIANT),
            ("arm_boot_arch", psci_use_hvc, PSCI_USE_HVC),
            ("flags", hardware_reduced, HW_REDUCED_ACPI),
        ):
            if wanted is not None:
                value = int(fields.get(name, getattr(self, name)))
                fields[name] = value | mask if wanted else value & ~mask
        return dataclasses.replace(self, **fields)
