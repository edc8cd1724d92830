"""What a backend gets of a plan: its `guest.json` and the EL3 monitor; and whether what is to be booted can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qemu_sdei import paths
from qemu_sdei.config import RAM_BASE, GuestConfig
from qemu_sdei.errors import UsageError
from qemu_sdei.host.cpu_models import check_page_size
from qemu_sdei.vm import uefi_boot
from qemu_sdei.vm.elected_services import elected
from qemu_sdei.vm.plan import Plan

if TYPE_CHECKING:
    from qemu_sdei.profiles.firmware_profile import FirmwareProfile
    from qemu_sdei.sdei.machine_description import MachineDescription


def guest_config(plan: Plan, name: str, initrd: Path | None, ram_path: Path | None = None) -> GuestConfig:
    """The `guest.json` for `plan`. Raises `UsageError` when what is to be booted cannot be."""
    plan = replace(plan, options=elected(plan.options))
    options = plan.options

    def absolute(path: str | Path | None) -> str | None:
        return None if path is None else str(paths.absolute(path))

    misbehaves: dict[str, Any] = {}
    if options.firmware is not None:
        from qemu_sdei.profiles import firmware_profile

        profile = firmware_profile.load(options.firmware)
        if any(rule.unplaced for rule in profile.rules):
            profile = _placed(profile, plan)
        misbehaves = profile.document() if profile.misbehaves else {}
    config = GuestConfig(
        name=name,
        nr_cpus=options.smp,
        cpu=options.cpu,
        ram_size=plan.ram_size,
        ram_path=absolute(ram_path),
        boot=plan.boot_json(initrd),
        virtualization=options.virtualization,
        hypervisor=options.hypervisor,
        smc=options.smc,
        stage2=options.stage2,
        events=absolute(options.events),
        sdei_version=options.sdei_version,
        sdei_vendor=options.sdei_vendor,
        sdei_signal=options.sdei_signal,
        sdei_slots=options.sdei_slots,
        sdei=options.sdei,
        firmware=misbehaves,
        services=tuple(str(paths.absolute(service)) for service in options.services),
        selection=tuple(options.selection),
        smccc_filter=tuple(options.smccc_filter),
        trace=absolute(options.trace),
        low_latency=options.low_latency,
    )
    switches = (options.sdei_version, options.sdei_vendor, options.sdei_signal, options.sdei_slots)
    if options.events is not None or switches != (None, None, None, None):
        from qemu_sdei.sdei.switches import description_of

        described = description_of(config)  # so that what is wrong is known now
        if plan.acpi:
            _check_announced(config, described, options.ras)
    return config


def monitor_image(plan: Plan) -> bytes:
    """The EL3 monitor for `plan`."""
    from qemu_sdei.monitor.image import patched
    from qemu_sdei.monitor.layout import window_base

    return patched(window_base(RAM_BASE, plan.ram_size), plan.options.smp)


def check_boot(config: GuestConfig) -> None:
    """Raise `UsageError` when kernel and initrd are not what they should be, or do not fit into the guest's memory and
    CPUs.
    """
    from qemu_sdei import boot
    from qemu_sdei.boot.config import BootConfig

    found = BootConfig.from_json(config.boot)
    boot.check(found)
    check_page_size(config.cpu, boot.page_size(found))
    uefi_boot.check_ram(found)


def _placed(profile: FirmwareProfile, plan: Plan) -> FirmwareProfile:
    """The functions that its rules name are those of the kernel that is booted. Raises `UsageError`."""
    from qemu_sdei.symbols import call_sites
    from qemu_sdei.symbols.sources import booted_file, load_image

    kernel = booted_file(plan.boot_json(None))
    found = None if kernel is None else load_image(kernel)
    if found is None:
        raise UsageError(
            f"firmware profile {profile.name} names functions, and this kernel's file has no symbols in it: set the "
            "profile when the guest runs, by `qemu-sdei firmware --profile FILE --symbols FILE`"
        )
    return call_sites.placed(profile, [found])


def _check_announced(config: GuestConfig, profile: MachineDescription, ras: bool) -> None:
    from qemu_sdei.backend.firmware.guest_interrupts import taken_by
    from qemu_sdei.boot.area import AcpiArea, Announced
    from qemu_sdei.boot.config import BootConfig

    announced = Announced.of(profile)
    sources = announced.sources
    lines = {f"source {each.name!r}": each.interrupt for each in sources} | {"[agdi]": announced.agdi_interrupt}
    for where, intid in lines.items():
        if intid is not None and (why := taken_by(intid)) is not None:
            raise UsageError(f"machine description {config.events}: {where}: {why}")
    AcpiArea.of(BootConfig.from_json(config.boot)).sources(sources)
    if ras and not sources:
        raise UsageError(
            f'machine description {config.events} has no error source: give an event acpi = "ghes" in it, '
            "or describe a [[source]], or leave out --ras"
        )
