"""The disk of `scripts/debian-disk`, booted by nothing but `--hypervisor --disk`: an installed Debian, as it is."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_sdei import Guest
from scripts.disklib import build
from tests.guest import debian_root
from tests.guest.guests import check_nothing_left, command, until

GHES = 0x324

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A copy of the disk in the cache. To make it takes too long for a test."""
    if not build.image().is_file():
        pytest.skip("no disk is in the cache: scripts/debian-disk makes one")
    path = tmp_path / "debian.qcow2"
    shutil.copyfile(build.image(), path)
    yield path
    path.unlink()


def ask(runtime: Path, *words: str) -> str:
    with command(runtime, *words) as process:
        out, err = process.communicate(timeout=180)
    assert process.returncode == 0, (words, out, err)
    return (out + err).decode()


def test_debian_boots_by_uefi_alone(disk: Path, runtime: Path) -> None:
    """Its own GRUB, kernel, initrd and systemd; errors, migrations, a reboot, and the end by its own word."""
    ask(runtime, "run", "-q", "-d", "--name", "box", "--hypervisor", "--disk", str(disk))
    with Guest.adopt("box") as guest:
        for boot in (1, 2):
            debian_root.log_in(guest)
            said = debian_root.run(guest, "dmesg").output
            for words in ("efi: EFI v2.70 by EDK II", "psci: probing for conduit method from ACPI", "sdei: SDEIv1.1"):
                assert words in said
            assert not re.search(r"BUG|Oops|WARNING|Call trace", said)
            state = debian_root.run(guest, "systemctl is-system-running --wait; systemctl --failed --no-legend", 300)
            assert state.output.split() == ["running"]
            for vcpu in (0, 1):
                assert guest.inject(GHES, vcpu, wait=True, timeout=60).outcome == "completed"
            for route in ("shared", "live") if boot == 1 else ():
                guest.migrate(route=route)
                assert guest.inject(GHES, 1, wait=True, timeout=60).outcome == "completed"
                assert debian_root.run(guest, f"echo after {route}").output.strip() == f"after {route}"
            if boot == 1:
                guest.write("systemctl reboot\r")
                until("the guest resets itself", lambda: guest.resets, 300)
        guest.write("systemctl poweroff\r")
        assert guest.wait_off(300).guest
    check_nothing_left(runtime)
