"""Rules for FADT (ACPI 6.5 5.2.9): only those that its own revision has."""

from __future__ import annotations

from typing import Final

from qemu_sdei.acpi.layout import layout
from qemu_sdei.acpi.rules import gas
from qemu_sdei.acpi.rules.registry import rules_for
from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.table import HEADER_SIZE
from qemu_sdei.acpi.tables.fadt import PSCI_COMPLIANT, PSCI_USE_HVC, SIZES, Fadt
from qemu_sdei.acpi.tables.gas import AddressSpace, Gas

RESET_REG_SUP: Final = 1 << 10
PERSISTENT_CPU_CACHES: Final = 3 << 22
_BLOCKS: Final = ("pm1a_evt_blk", "pm1b_evt_blk", "pm1a_cnt_blk", "pm1b_cnt_blk", "pm2_cnt_blk", "pm_tmr_blk",
                  "gpe0_blk", "gpe1_blk")  # fmt: skip
"""Register blocks; each has a 32-bit address and, from revision 3 on, a register `x_...`."""


@rules_for(Fadt)
def check(report: Report, table: Fadt) -> None:
    """Check the whole table.

    Errors: ends within a field; no DSDT; PSCI without HW_REDUCED_ACPI; without HW_REDUCED_ACPI: no PM1a blocks, no
    FACS, block lengths; reset register.
    Warnings: shorter than its revision (ACPICA goes by the length); ARM_BOOT_ARCH before ACPI 5.1 (Linux takes it since
    5.3) and its reserved bits; HVC without PSCI; 32-bit and 64-bit addresses that differ; HW_REDUCED_ACPI before
    revision 5.
    """
    _size(report, table)
    _addresses(report, table)
    _arm(report, table)
    if table.revision >= 3:
        if table.preferred_pm_profile > 8:
            report.warning("preferred_pm_profile", f"profile {table.preferred_pm_profile} is reserved in ACPI 6.5")
        _reset(report, table)
    if table.hardware_reduced and table.revision >= 5:
        _reduced(report, table)
    elif table.hardware_reduced:
        report.warning("flags", f"HW_REDUCED_ACPI came with revision 5, this table has {table.revision}")
    else:
        _fixed_hardware(report, table)
    if table.revision >= 3:
        report.reserved("reserved", table.reserved)
        report.reserved("flags", table.flags, 0xFF00_0000)
        if table.flags & PERSISTENT_CPU_CACHES == PERSISTENT_CPU_CACHES:
            report.warning("flags", "PERSISTENT_CPU_CACHES is 3, which is reserved")


def _size(report: Report, table: Fadt) -> None:
    wanted = max(size for revision, size in SIZES.items() if revision <= max(table.revision, 1))
    if table.size >= wanted:
        return
    said = f"revision {table.revision} has {wanted} bytes, this table {table.size}"
    ends = {HEADER_SIZE + item.offset + item.size for item in layout(Fadt)}
    if table.size not in ends:
        report.error("length", f"{said}, which ends within a field", 4)
        return
    # "The FADT revision value is unreliable. Only the length can be trusted", ACPICA's tbfadt.c says.
    report.warning("length", f"{said}: ACPICA, and so Linux, goes by the length, and takes what is missing for 0", 4)


def _differ(report: Report, old: str, new: str, low: int, high: int) -> None:
    if low and high and low != high:
        report.warning(new, f"{high:#x} differs from {old}, which is {low:#x}")


def _addresses(report: Report, table: Fadt) -> None:
    if not table.dsdt and not table.x_dsdt:
        report.error("x_dsdt" if table.size >= SIZES[3] else "dsdt", "there is no DSDT: the address is 0")
    _differ(report, "dsdt", "x_dsdt", table.dsdt, table.x_dsdt)
    _differ(report, "firmware_ctrl", "x_firmware_ctrl", table.firmware_ctrl, table.x_firmware_ctrl)
    for name in _BLOCKS:
        register: Gas = getattr(table, f"x_{name}")
        if register.address:
            gas.check(report, f"x_{name}", register)
            _differ(report, name, f"x_{name}.address", getattr(table, name), register.address)


def _arm(report: Report, table: Fadt) -> None:
    if not table.arm_boot_arch:
        return
    # The two bytes were reserved until ACPI 5.1, which is revision 5 with a minor version of 1.
    if (version := (table.revision, table.minor_version & 0xF)) < (5, 1):
        report.warning(
            "arm_boot_arch",
            f"it is {table.arm_boot_arch:#x}, and reserved before ACPI 5.1: this table is of "
            f"{version[0]}.{version[1]}. "
            + (
                "Linux since 5.3 (and its stable kernels of 2019) takes it for one of 5.1 because of these flags, "
                "an older one on Arm leaves ACPI alone"
                if table.hardware_reduced
                else "Without HW_REDUCED_ACPI Linux on Arm takes no FADT, and others do not look at it"
            ),
        )
        if not table.hardware_reduced:
            return
    report.reserved("arm_boot_arch", table.arm_boot_arch, 0xFFFF & ~(PSCI_COMPLIANT | PSCI_USE_HVC))
    if table.psci_use_hvc and not table.psci_compliant:
        report.warning(
            "arm_boot_arch",
            "PSCI_USE_HVC is set without PSCI_COMPLIANT: there is no PSCI, but Linux calls SDEI by HVC then",
        )
    if table.psci_compliant and not table.hardware_reduced:
        report.error("flags", "the machine has PSCI, so it is an Arm one: they must be HW_REDUCED_ACPI")


def _reset(report: Report, table: Fadt) -> None:
    if not table.flags & RESET_REG_SUP:
        return
    register = table.reset_reg
    if register.space not in (AddressSpace.SYSTEM_MEMORY, AddressSpace.SYSTEM_IO, AddressSpace.PCI_CONFIG):
        report.error("reset_reg.space", "the reset register must be in system memory, I/O or PCI configuration space")
    if register.bit_width != 8 or register.bit_offset != 0:
        report.error("reset_reg.bit_width", "the reset register must be 8 bits wide, from bit 0 on")


def _reduced(report: Report, table: Fadt) -> None:
    # Everything about fixed hardware is ignored then, so whatever stands there is allowed.
    if bool(table.sleep_control_reg.address) != bool(table.sleep_status_reg.address):
        name = "sleep_status_reg" if table.sleep_control_reg.address else "sleep_control_reg"
        report.warning(f"{name}.address", "sleep control and status registers are there both or not at all")
    for name in ("sleep_control_reg", "sleep_status_reg"):
        register: Gas = getattr(table, name)
        if register.address:
            gas.check(report, name, register)


def _fixed_hardware(report: Report, table: Fadt) -> None:
    def there(name: str) -> bool:
        register: Gas = getattr(table, f"x_{name}")
        return bool(getattr(table, name) or register.address)

    for name in ("pm1a_evt_blk", "pm1a_cnt_blk"):
        if not there(name):
            report.error(name, "it is required, unless the machine is HW_REDUCED_ACPI")
    if table.pm1_evt_len < 4:
        report.error("pm1_evt_len", f"{table.pm1_evt_len} bytes: at least 4 are needed")
    if table.pm1_cnt_len < 2:
        report.error("pm1_cnt_len", f"{table.pm1_cnt_len} bytes: at least 2 are needed")
    if there("pm_tmr_blk") and table.pm_tmr_len != 4:
        report.error("pm_tmr_len", f"{table.pm_tmr_len} bytes: a timer has 4")
    if not table.firmware_ctrl and not table.x_firmware_ctrl:
        report.error("firmware_ctrl", "there is no FACS: it is required, unless the machine is HW_REDUCED_ACPI")
    for name in ("gpe0_blk_len", "gpe1_blk_len"):
        if getattr(table, name) % 2:
            report.error(name, "it is odd: half of it is for status, half for enable bits")
