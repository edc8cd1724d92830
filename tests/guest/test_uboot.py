"""Another client of our firmware: Debian's U-Boot for QEMU, as a binary that is entered at its first byte."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from qemu_sdei import Guest, GuestOptions
from qemu_sdei.errors import UsageError
from qemu_sdei.host.debian import DebianCache

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux")]


@pytest.fixture(scope="module")
def uboot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its binary, from Debian's package; skipped where that cannot be had."""
    folder: Path = tmp_path_factory.mktemp("u-boot")
    try:
        package = DebianCache().package("u-boot-qemu")
    except UsageError as error:
        pytest.skip(str(error))
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True, timeout=60)
    return folder / "usr/lib/u-boot/qemu_arm64/u-boot.bin"


def prompt(guest: Guest) -> None:
    guest.expect("Hit any key to stop autoboot", 30)
    guest.write("\r")
    guest.expect("=> $", 30)


def test_uboot_comes_to_its_prompt_resets_and_powers_off(uboot: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    options = GuestOptions(kernel=f"flat:{uboot}", memory="256M", drives=[str(disk)])
    with Guest(options) as guest:
        prompt(guest)
        guest.write("fdt addr $fdtcontroladdr; fdt print /firmware/sdei\r")
        guest.expect('compatible = "arm,sdei-1.0"', 10)
        guest.expect("=> $", 10)
        guest.write("virtio scan; virtio info\r")
        guest.expect(r"Capacity: 1\.0 MB", 10)
        guest.expect("=> $", 10)
        guest.write("reset\r")
        prompt(guest)
        assert [(reset["guest"], reset["reason"]) for reset in guest.resets] == [(True, "guest-reset")]
        calls = guest.status()["pes"][0]["calls"]
        guest.write("poweroff\r")
        off = guest.wait_off(30)
        assert (off.reason, off.guest) == ("guest-shutdown", True)
        assert calls["SYSTEM_RESET"] == 1
