"""UEFI as the firmware of a guest above our EL2: Debian's EDK II, to its shell, to Linux, from a disk."""

from __future__ import annotations

import os
import re
import signal
from functools import partial
from pathlib import Path

import pytest

from qemu_sdei import Guest, GuestOptions
from qemu_sdei.boot import initramfs
from qemu_sdei.errors import SdeiError, UsageError
from qemu_sdei.guest.sdei_client import SdeiClient
from qemu_sdei.host import kernel_drivers
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.migration import offer_check
from qemu_sdei.vm.options import NO_KERNEL
from scripts.disklib.layout import SYSTEM, write_gpt
from tests.guest import debian_root, uefi_disk
from tests.guest.client import module_for
from tests.guest.guests import until
from tests.guest.remote import Receiving
from tests.guest.test_cpus import TROUBLE
from tests.uefi.images import qcow2_of

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux", "runtime")]

GHES = 0x324
BANNER = "UEFI firmware "
SHELL = r"Shell> "
GUID = "6f1b2c3d-0001-4a5b-8c6d-7e8f90a1b2c3"


@pytest.fixture(autouse=True)
def edk2() -> Path:
    """Debian's UEFI, which is in the cache of who has booted by it once."""
    try:
        return DebianCache().uefi()
    except SdeiError as error:
        pytest.skip(str(error))


def options(**words: object) -> GuestOptions:
    return GuestOptions(**{"hypervisor": True, "uefi": True, "boot_timeout": 120.0} | words)  # type: ignore[arg-type]


def handled(guest: Guest) -> None:
    """An error event of the HEST reaches Linux, which has found it by itself."""
    for vcpu in (0, 1):
        assert guest.inject(GHES, vcpu, wait=True, timeout=30).outcome == "completed"


def log(guest: Guest) -> str:
    return guest.run("dmesg").output


def test_linux_finds_our_tables_by_uefi() -> None:
    with Guest(options(ras=True)) as guest:
        guest.wait_shell()
        said = log(guest)
        for words in (
            "efi: EFI v2.70 by EDK II",
            "SMBIOS 3.0",
            "psci: probing for conduit method from ACPI",
            "psci: PSCIv1.1",
            "CPU: All CPU(s) started at EL1",
            "sdei: SDEIv1.1 (0x4b564d) detected in firmware",
            "HEST: Table parsing has been initialized",
            "GHES: APEI firmware first mode is enabled",
        ):
            assert words in said
        for table in ("SDEI", "HEST", "AGDI", "FACP", "SPCR"):
            assert len(re.findall(rf"ACPI: {table} 0x", said)) == 1, table
        assert not TROUBLE.search(said)
        handled(guest)
        assert [note for note in guest.trace(4000) if note["type"] == "reject"] == []


@pytest.mark.slow
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_by_device_tree(series: str) -> None:
    with Guest(options(series=series, boot="dt")) as guest:
        guest.wait_shell()
        said = log(guest)
        assert re.search(r"efi: EFI v2\.70? by EDK II", said)
        assert "psci: probing for conduit method from DT" in said
        assert "sdei: SDEIv1.1 (0x4b564d) detected in firmware" in said
        assert "ACPI: SDEI" not in said


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cpu", ["cortex-a72", "max"])
def test_events_go_on_over_a_reboot_and_moves(cpu: str, tmp_path: Path) -> None:
    with Guest(options(series="6.12", ras=True, cpu=cpu, uefi_vars=tmp_path / "vars.fd")) as guest:
        guest.wait_shell()
        handled(guest)
        for route in ("shared", "copy", "live"):
            guest.migrate(route=route)
            handled(guest)
        guest.write("reboot -f\r")
        until("the guest resets itself", lambda: guest.resets, 60)
        guest.wait_shell()
        handled(guest)
        guest.save(tmp_path / "saved", end=True)
    with Guest.saved(tmp_path / "saved", trust=True) as guest:
        handled(guest)
        guest.write("reboot -f\r")
        until("the restored guest resets itself", lambda: guest.resets, 60)
        guest.wait_shell()
        handled(guest)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What boots it again there comes along."""
    monkeypatch.setattr(offer_check, "_here", lambda *_: None)
    with Guest(options(series="6.12", name="a", ras=True)) as guest, Receiving(name="b") as receiver:
        guest.wait_shell()
        handled(guest)
        guest.migrate_to(receiver.to)
        there = receiver.guest
        handled(there)
        there.write("reboot -f\r")
        until("the guest resets itself", lambda: there.resets, 60)
        there.wait_shell()
        handled(there)
        assert not TROUBLE.search(log(there))


def serving(guest: Guest) -> int | None:
    """The process that serves a guest; None: there is none just now."""
    try:
        return int(guest.client().hello()["pid"])
    except SdeiError:
        return None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_backend_that_is_killed_meanwhile() -> None:
    """While UEFI reads the kernel, and while Linux starts: each time another one takes up what was under way."""
    with Guest(options(ras=True)) as guest:
        for moment in (BANNER, "EFI stub", "ACPI: Interpreter"):
            guest.expect(re.escape(moment), 120)
            backend = serving(guest)
            assert backend is not None
            os.kill(backend, signal.SIGKILL)
            until("another backend", lambda backend=backend: serving(guest) not in (None, backend), 30)
        guest.wait_shell()
        handled(guest)
        assert not TROUBLE.search(log(guest))


def typed(guest: Guest, line: str, answer: str) -> None:
    """Type a line into UEFI's shell, and wait for what it says to it."""
    guest.write(line + "\r")
    guest.expect(answer, 60)
    guest.expect(SHELL, 60)


@pytest.mark.slow
@pytest.mark.parametrize("boot", ["acpi", "dt"])
def test_the_shell_keeps_its_variables(boot: str, tmp_path: Path) -> None:
    wanted = options(kernel=NO_KERNEL, boot=boot, uefi_vars=tmp_path / "vars.fd")
    with Guest(wanted) as guest:
        guest.expect("to skip", 120)
        guest.write("\x1b")
        guest.expect(SHELL, 60)
        typed(guest, f"setvar Kept -guid {GUID} -nv -bs -rt =0x1234", "")
        guest.write("reset -s\r")
        assert guest.wait_off(60).guest
    with Guest(wanted) as guest:
        guest.expect("to skip", 120)
        guest.write("\x1b")
        guest.expect(SHELL, 60)
        typed(guest, f"setvar Kept -guid {GUID}", "34 12")
        guest.write("reset\r")
        guest.expect(BANNER, 60)
        guest.expect("to skip", 120)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_variables_are_there_at_another_host(tmp_path: Path) -> None:
    wanted = options(kernel=NO_KERNEL, boot="dt", name="a", uefi_vars=tmp_path / "vars.fd")
    with Guest(wanted) as guest, Receiving(name="b") as receiver:
        guest.expect("to skip", 120)
        guest.write("\x1b")
        guest.expect(SHELL, 60)
        typed(guest, f"setvar Kept -guid {GUID} -nv -bs -rt =0x1234", "")
        guest.migrate_to(receiver.to)
        there = receiver.guest
        before = there.console_text.end
        there.write("reset\r")
        there.console_text.search("to skip", before, 120)
        there.write("\x1b")
        there.console_text.search(SHELL, before, 60)
        there.write(f"setvar Kept -guid {GUID}\r")
        there.console_text.search("34 12", before, 60)
        there.write("reset -s\r")
        assert there.wait_off(60).guest
    assert b"K\0e\0p\0t\0" in (tmp_path / "vars.fd").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(uefi_disk.missing()), reason=f"missing {uefi_disk.missing()}")
def test_a_disk_boots_by_itself(tmp_path: Path) -> None:
    """Firmware, GRUB as Debian signs it, kernel and initrd from the disk, events; and once more after a reset."""
    cache = DebianCache()
    initrd, image = tmp_path / "initrd", tmp_path / "disk.qcow2"
    initrd.write_bytes(initramfs.build(cache.busybox().read_bytes(), command=None, nonce="0" * 16, extra_files={}))
    uefi_disk.make(tmp_path, tmp_path / "raw", initrd)
    image.write_bytes(qcow2_of((tmp_path / "raw").read_bytes()))
    with Guest(options(kernel=NO_KERNEL, drives=[str(image)])) as guest:
        for boot in (1, 2):
            guest.expect("Run /init as init process", 180)
            guest.expect("guest# ", 60)
            handled(guest)
            if boot == 1:
                guest.write("reboot -f\r")
                until("the guest resets itself", lambda: guest.resets, 60)
        guest.write("poweroff -f\r")
        assert guest.wait_off(60).guest


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_installed_debian(tmp_path: Path) -> None:
    """Systemd from a root file system on the disk that UEFI has booted: events, reboot, power-off."""
    missing = [*uefi_disk.missing(), *debian_root.missing()]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"debootstrap needs root and is told to be here: missing {missing}")
    cache = DebianCache()
    drivers = kernel_drivers.load_order(cache.drivers(cache.kernel("6.1")), kernel_drivers.DISK)
    initrd, root, image = tmp_path / "initrd", tmp_path / "root.img", tmp_path / "disk.img"
    busybox = cache.busybox().read_bytes()
    built = initramfs.build(busybox, command=None, nonce="0" * 16, drivers=drivers, root="/dev/vda2")
    initrd.write_bytes(built)
    debian_root.make(tmp_path, root, files={"/root/sdei_test.ko": module_for("6.1")})
    uefi_disk.make(tmp_path, image, initrd, root=root)
    with Guest(options(kernel=NO_KERNEL, drives=[str(image)], uefi_vars=tmp_path / "vars.fd")) as guest:
        for boot in (1, 2):
            debian_root.log_in(guest)
            run = partial(debian_root.run, guest)
            client = SdeiClient(run, "/root/sdei_test.ko")
            client.load([0, 0x100, 0x200])
            for cpu in (0, 1):
                for event in (0, 0x100, 0x200):
                    guest.inject(event, cpu, wait=True, timeout=30)
            assert client.count() == 6
            handled(guest)
            if boot == 1:
                guest.write("systemctl reboot\r")
                until("the guest resets itself", lambda: guest.resets, 120)
        guest.write("systemctl poweroff\r")
        assert guest.wait_off(180).guest


def test_a_disk_in_use_is_told(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    write_gpt(image, [(SYSTEM, 1)])
    wanted = options(kernel=NO_KERNEL, drives=[str(image)], memory="256M")
    with Guest(wanted) as guest:
        guest.expect(re.escape(BANNER), 60)
        with pytest.raises(UsageError, match=f"disk image {image} is in use by another QEMU") as error, Guest(wanted):
            pass
        assert "\n" not in str(error.value)
