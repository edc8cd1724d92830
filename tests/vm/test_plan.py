"""Options that cannot be are told before anything is created."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.host.environment import find_qemu
from qemu_sdei.host.lost_pages import LOSES_NOTHING
from qemu_sdei.vm.guest_json import check_boot, guest_config, monitor_image
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.plan import Plan, prepare
from tests.boot.kernels import arm64_image
from tests.uefi.test_files import firmware

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64")

UEFI = GuestOptions(uefi="/nonexistent", hypervisor=True)
SELFTEST = GuestOptions(kernel="builtin:selftest")


def test_the_embedded_guest_needs_nothing_else() -> None:
    plan = prepare(SELFTEST)
    assert plan.flat
    assert not plan.own_initramfs
    config = guest_config(plan, "guest", None)
    check_boot(config)
    padding = 8192 if find_qemu(None).version < LOSES_NOTHING else 0
    assert (config.nr_cpus, config.ram_size, config.boot["kind"]) == (2, (1 << 30) + padding, "flat")
    assert len(monitor_image(plan)) > 1000


def test_services_come_from_the_events_file_and_the_command_line_wins(tmp_path: Path) -> None:
    events = tmp_path / "events.toml"
    zero = '[[event]]\nnumber = 0\nname = "zero"\nsignalable = true\n'
    events.write_text(f'[services]\nstd = ["trng"]\nstd-hyp = []\n{zero}')
    described = guest_config(prepare(replace(SELFTEST, events=events)), "guest", None)
    assert (described.selection, described.sdei) == (("std=trng", "std-hyp="), False)
    named = guest_config(prepare(replace(SELFTEST, events=events, selection=("std=sdei",))), "guest", None)
    assert (set(named.selection), named.sdei) == ({"std=sdei", "std-hyp="}, True)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (replace(SELFTEST, smp=0), "0 vCPUs are not possible: give 1 to 512"),
        (replace(SELFTEST, smp=513), "513 vCPUs"),
        (replace(SELFTEST, memory="32M"), "too small"),
        (replace(SELFTEST, cpu="cortex-a73x"), "nearest: "),
        (replace(SELFTEST, name="a/b"), "guest name"),
        (replace(SELFTEST, initrd="x"), "is not a Linux kernel"),
        (replace(SELFTEST, command=["true"]), "is not a Linux kernel"),
        (replace(SELFTEST, series="6.1"), "give one of them"),
        (replace(SELFTEST, boot="acpi"), "is not a Linux kernel and does not use ACPI"),
        (replace(SELFTEST, ras=True), "is not a Linux kernel and does not use ACPI"),
        (GuestOptions(boot="uefi"), "boot 'uefi' is not understood"),  # type: ignore[arg-type]
        (GuestOptions(boot="dt", ras=True), "leave out --dt, or --ras"),
        (GuestOptions(sdei=False, ras=True), "leave out --no-sdei, or --ras"),
        (replace(SELFTEST, events="/nonexistent"), "events file /nonexistent cannot be read: no such file"),
        (replace(SELFTEST, services=["/nonexistent"]), "service /nonexistent"),
        (replace(SELFTEST, selection=["vendor-hyp=ptp"]), "so they need --hypervisor"),
        (replace(SELFTEST, selection=["vendor-hyp-2=discover_impl_ver"]), "so they need --hypervisor"),
        (replace(SELFTEST, selection=["std=sdei"], sdei=False), "--no-sdei and --services with sdei contradict"),
        (replace(SELFTEST, qemu="/nonexistent"), "does not exist"),
        (replace(SELFTEST, append="x" * 5000), "command line"),
        (replace(SELFTEST, memory_path="/nonexistent"), "--memory-path"),
        (GuestOptions(kernel="/nonexistent"), "kernel /nonexistent cannot be read: no such file"),
        (GuestOptions(kernel="/etc"), "/etc has no kernel in it: give an arm64 Image, a linux-image package"),
        (GuestOptions(kernel="/dev/null"), "regular"),
        (GuestOptions(kernel="/bin/sh"), "arm64 Image"),
        (GuestOptions(initrd="/nonexistent"), "initrd /nonexistent"),
        (GuestOptions(initrd="/bin/sh", command=["true"]), "own initramfs"),
        (GuestOptions(command=[]), "empty"),
        (GuestOptions(files={"x": Path("/nonexistent")}), "file for the guest"),
        (
            replace(SELFTEST, kdump=True),
            "a capture kernel is loaded by our own initramfs: builtin:selftest is not a Linux kernel",
        ),
        (GuestOptions(kdump=True, initrd="/bin/sh"), "leave out --initrd"),
        (GuestOptions(kdump=True, append="x crashkernel=1G"), "leave it out of --append"),
        (GuestOptions(kdump=True, kdump_cpus=0), "0 vCPUs for the capture kernel"),
        (GuestOptions(kdump=True, vmcore="/nonexistent/x"), "there is no directory /nonexistent"),
        (GuestOptions(kdump=True, vmcore="/"), "vmcore / cannot be written: it is a directory"),
        (GuestOptions(vmcore="x"), "--vmcore is for a crash dump: give --kdump too"),
        (GuestOptions(crashkernel="64M"), "--crashkernel is for a crash dump"),
        (GuestOptions(drives=["/nonexistent"]), "disk image /nonexistent cannot be read"),
        (GuestOptions(shares=["/nonexistent"]), "no such directory"),
        (GuestOptions(forwards=["22"]), "HOST:GUEST"),
        (GuestOptions(root="/dev/vda", command=["true"]), "leave out --root"),
        (GuestOptions(root="vda"), "root device 'vda'"),
        (GuestOptions(root="/dev/vda", initrd="/bin/sh"), "leave out --initrd"),
        (GuestOptions(client=True, initrd="/bin/sh"), "leave out --initrd"),
        (GuestOptions(client="/nonexistent"), "client module /nonexistent"),
        (replace(SELFTEST, client=True), "is not a Linux kernel"),
        (replace(SELFTEST, root="/dev/vda"), "is not a Linux kernel"),
        (GuestOptions(hypervisor=True, virtualization=True), "ours with --hypervisor: leave out one"),
        (GuestOptions(smc="undefined"), "--smc undefined needs --hypervisor"),
        (GuestOptions(hypervisor=True, smc="trapped"), "'trapped' is not understood: give 'served'"),  # type: ignore[arg-type]
        (GuestOptions(stage2=False), "--no-stage2 needs --hypervisor"),
        (GuestOptions(uefi=True), "--uefi and --disk need --hypervisor"),
        (GuestOptions(kernel="none"), "--kernel none needs --uefi"),
        (GuestOptions(uefi_vars="/tmp/v"), "give --uefi, or leave them out"),
        (UEFI, "UEFI image /nonexistent: there is no such file"),
        (replace(UEFI, stage2=False), "leave out --no-stage2, or --uefi"),
        (replace(UEFI, kernel="flat:/bin/true"), "UEFI boots none: leave out --uefi"),
        (replace(UEFI, uefi_vars="/tmp/v", snapshots="/tmp/s"), "leave out --uefi-vars, or --snapshots"),
        (replace(UEFI, kernel="none", append="quiet"), "leave out --append, or give --kernel"),
        (replace(UEFI, kernel="none", command=["true"]), "leave out a command, or give --kernel"),
        (replace(UEFI, kernel="none", drives=["/bin/sh"]), "/bin/sh has no EFI system partition"),
        (replace(UEFI, uefi_vars="/bin/sh"), "UEFI variables /bin/sh: .* bytes are not the 64 MiB"),
        (GuestOptions(kernel="flat:/nonexistent"), "guest binary /nonexistent cannot be read: no such file"),
    ],
)
def test_what_cannot_be(options: GuestOptions, what: str) -> None:
    with pytest.raises(UsageError, match=what) as error:
        prepare(options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("memory", ["64M", "128M", "132M"])
def test_too_little_ram_for_uefi(memory: str, tmp_path: Path) -> None:
    path = tmp_path / "CODE.fd"
    path.write_bytes(firmware())
    options = GuestOptions(hypervisor=True, uefi=path, kernel="none", memory=memory)
    with pytest.raises(UsageError, match=r"UEFI needs 128 MiB .*, the guest has \d+ MiB: use --memory 160"):
        check_boot(guest_config(prepare(options), "guest", None))
    check_boot(guest_config(prepare(replace(options, memory="160M")), "guest", None))


def test_a_kernel_of_16k_pages_needs_a_cpu_that_has_them(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(arm64_image(flags=4))
    plan = replace(prepare(SELFTEST), kernel=str(path), flat=False)
    with pytest.raises(UsageError, match=r"pages of 16 KiB, and CPU model cortex-a72 .*: use --cpu cortex-a76"):
        check_boot(guest_config(plan, "guest", None))
    for cpu in ("cortex-a76", "max,pauth=off"):
        check_boot(guest_config(replace(plan, options=replace(plan.options, cpu=cpu)), "guest", None))
    path.write_bytes(arm64_image(flags=6))  # 64 KiB: all have them
    path = path.rename(tmp_path / "Image-64k")
    check_boot(guest_config(replace(plan, kernel=str(path)), "guest", None))


@pytest.mark.parametrize("version", ["", "1", "x.y", "1.0.0"])
def test_an_sdei_version_that_is_none(version: str) -> None:
    with pytest.raises(UsageError, match=r"MAJOR\.MINOR"):
        guest_config(prepare(replace(SELFTEST, sdei_version=version)), "guest", None)


def test_an_embedded_guest_that_does_not_exist() -> None:
    plan = prepare(replace(SELFTEST, kernel="builtin:nothing"))
    with pytest.raises(UsageError, match=r"there are: .*builtin:selftest"):
        check_boot(guest_config(plan, "guest", None))


@pytest.mark.parametrize(
    ("options", "tables"),
    [
        (GuestOptions(), "dt"),
        (GuestOptions(ras=True), "acpi"),
        (GuestOptions(boot="acpi"), "acpi"),
        (GuestOptions(boot="dt"), "dt"),
        (GuestOptions(boot="acpi", ras=True), "acpi"),
    ],
)
def test_auto_is_acpi_where_hardware_errors_are_asked_for(options: GuestOptions, tables: str, tmp_path: Path) -> None:
    assert guest_config(plan_for(options, tmp_path), "guest", None).boot["tables"] == tables


def test_ras_needs_an_event_for_hardware_errors(tmp_path: Path) -> None:
    events = tmp_path / "events.toml"
    events.write_text('[[event]]\nnumber = 0\nname = "software"\nsignalable = true\n')
    with pytest.raises(UsageError, match='no error source: give an event acpi = "ghes"'):
        guest_config(plan_for(GuestOptions(ras=True, events=events), tmp_path), "guest", None)


def test_an_interrupt_of_a_device_can_be_no_error_sources(tmp_path: Path) -> None:
    events = tmp_path / "events.toml"
    zero = '[[event]]\nnumber = 0\nname = "software"\nsignalable = true\n'
    source = '[[source]]\nname = "line"\nnotify = "interrupt"\ninterrupt = '
    for text, message in (
        (zero + source + "33\n", "source 'line': interrupt 33 is that of the UART: take one of 42 to 47"),
        (zero + source + "300\n", "source 'line': interrupt 300 is not an SPI of this machine"),
        ("[agdi]\ninterrupt = 40\n" + zero + source + "208\n", r"\[agdi\]: interrupt 40 is that of the firmware"),
    ):
        events.write_text(text)
        with pytest.raises(UsageError, match=message):
            guest_config(plan_for(GuestOptions(ras=True, events=events), tmp_path), "guest", None)


def plan_for(options: GuestOptions, directory: Path) -> Plan:
    """A plan for a kernel that is none; nothing looks at it before `check_boot`."""
    plan = prepare(SELFTEST)
    return replace(plan, options=options, kernel=str(directory / "Image"), flat=False)
