"""A whole Debian system on our firmware: systemd to a login prompt, events, reboot, power-off."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from qemu_sdei import Guest, GuestOptions
from qemu_sdei.guest.sdei_client import SdeiClient
from tests.guest import debian_root
from tests.guest.client import module_for
from tests.guest.guests import until

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.usefixtures("linux")]


def test_debian_boots_to_a_login_handles_events_and_reboots(tmp_path: Path) -> None:
    if os.geteuid() != 0 or debian_root.missing():
        pytest.skip(f"debootstrap needs root and is told to be here: missing {debian_root.missing()}")
    image = tmp_path / "debian.img"
    debian_root.make(tmp_path, image, files={"/root/sdei_test.ko": module_for("6.1")})
    options = GuestOptions(series="6.1", drives=[str(image)], root="/dev/vda", net=True, memory="1G", boot_timeout=120)
    with Guest(options) as guest:
        for boot in (1, 2):
            debian_root.log_in(guest)
            run = partial(debian_root.run, guest)
            assert run("systemctl is-system-running --wait; cat /proc/1/comm").output.splitlines()[-1] == "systemd"
            client = SdeiClient(run, "/root/sdei_test.ko")
            client.load([0, 0x100, 0x200])
            for cpu in (0, 1):
                for event in (0, 0x100, 0x200):
                    guest.inject(event, cpu, wait=True, timeout=30)
            assert client.count() == 6
            client.signal(1)
            until("the signal is handled", lambda client=client: client.count(event=0, cpu=1) == 2)
            if boot == 1:
                guest.write("systemctl reboot\r")
                until("the guest resets itself", lambda: guest.resets, 120)
                assert guest.resets[0]["guest"]
        guest.write("systemctl poweroff\r")
        assert guest.wait_off(180).guest
