"""kexec with events registered: the next kernel finds SDEI as after a reset, though nothing was (conformance 89)."""

from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path

import pytest

from qemu_sdei.cli import main
from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import until
from tests.guest.kexec import Segment, kexec_a64
from tests.guest.test_power import TROUBLE, check_sdei_works

pytestmark = pytest.mark.guest

IMAGE, TREE, INITRD = "/boot/Image", "/boot/dtb", "/boot/initrd"


def prepare(client: Client, image: Path) -> None:
    """Put a program into the guest that starts the same kernel again: same device tree, so also the same place for the
    initrd, which is made of the guest's own files.
    """
    header = image.read_bytes()[:64]
    assert header[56:60] == b"ARM\x64", "an Image that is not compressed"
    client.shell(f"cp /sys/firmware/fdt {TREE}; cd /; find . -xdev | grep -v '^./boot' | cpio -o -H newc >{INITRD}")
    sizes = [int(client.shell(f"stat -c %s {path}")) for path in (TREE, INITRD)]
    chosen = "/sys/firmware/devicetree/base/chosen/linux,initrd"
    start, end = (int(client.shell(f"od -An -tx1 {chosen}-{name} | tr -d ' \\n'"), 16) for name in ("start", "end"))
    assert sizes[1] <= end - start
    program = kexec_a64(
        Segment(IMAGE, image.stat().st_size, 0x4800_0000, int.from_bytes(header[16:24], "little")),
        Segment(TREE, sizes[0], 0x6020_0000, 0x20_0000),
        Segment(INITRD, sizes[1], start & ~0xFFF, end - (start & ~0xFFF)),
    )
    assert start % 4096 == 0
    text = base64.b64encode(gzip.compress(program)).decode()
    client.shell(f"echo {text} | base64 -d | gunzip >/bin/kexec; chmod 755 /bin/kexec")


@pytest.mark.slow  # for the firmware a capture kernel (test_kdump.py) is the same
@pytest.mark.parametrize("hypervisor", [False, True], ids=["alone", "above EL2"])
@pytest.mark.parametrize("series", ["6.12", "6.1"])
def test_kexec_with_events_registered(series: str, hypervisor: bool, capsys: pytest.CaptureFixture[str]) -> None:
    image = DebianCache().kernel(series).image
    files = {KO: module_for(series), IMAGE: image}
    with Guest(GuestOptions(series=series, smp=2, hypervisor=hypervisor, files=files)) as guest:
        client = Client(guest)
        client.shell("dmesg -n 1")
        prepare(client, image)
        client.load("events=0,0x100,0x200")
        guest.inject(0, 1, wait=True)
        client.shell("echo watchdog 1000 >/proc/sdei_test/control")  # bound timers of all CPUs, which fire meanwhile
        before = guest.console_text.end
        resets = calls(guest, "SDEI_SHARED_RESET")
        guest.write("kexec\r")
        until("the next kernel probes SDEI", lambda: calls(guest, "SDEI_SHARED_RESET") >= resets + 2, 120)
        guest.console_text.search("qemu-sdei:[0-9a-f]+:shell", before, 60)
        client.shell("dmesg -n 1")
        log = client.shell("dmesg")
        assert not TROUBLE.search(log), log
        assert "sdei: SDEIv1.1" in log
        status = guest.status()
        assert (status["epoch"], status["kernels"], guest.resets) == (1, 2, [])
        assert (main(["list"]), main(["status", guest.name])) == (0, 0)
        shown = capsys.readouterr().out
        assert "1, kernel 2" in shown
        assert re.search(rf"^guest '{guest.name}': running, up .*, boot 1\b.*, kernel 2 since$", shown, re.M), shown
        assert calls(guest, "SYSTEM_RESET") == 0
        assert status["counts"]["rejected"] == 0
        assert client.registered(0x200) == [False]
        check_sdei_works(client, 2)


@pytest.mark.slow
@pytest.mark.parametrize("series", ["6.12", "6.1"])
def test_kexec_on_firmware_that_keeps_events(series: str) -> None:
    """Profile `agdi-eio`: the next kernel's resets are DENIED, and Linux does without SDEI. What is left registered is
    of a kernel that is gone: nothing of it is delivered, since no vCPU is unmasked.
    """
    image = DebianCache().kernel(series).image
    files = {KO: module_for(series), IMAGE: image}
    with Guest(GuestOptions(series=series, smp=2, files=files, firmware="agdi-eio")) as guest:
        client = Client(guest)
        client.shell("dmesg -n 1")
        prepare(client, image)
        client.load("events=0,0x200")
        guest.inject(0, 1, wait=True)
        before = guest.console_text.end
        resets = calls(guest, "SDEI_SHARED_RESET")
        guest.write("kexec\r")
        until("the next kernel probes SDEI", lambda: calls(guest, "SDEI_SHARED_RESET") >= resets + 2)
        guest.console_text.search("qemu-sdei:[0-9a-f]+:shell", before, 60)
        log = client.shell("dmesg")
        assert "sdei: Failed to reset platform: -1" in log, log
        assert "sdei: disabling SDEI firmware interface" in log
        loaded = guest.run(f"insmod {KO} events=0")
        assert loaded.status != 0, loaded.output
        assert [rule["acted"] > 0 for rule in guest.firmware.status()["rules"]] == [True, True]
        assert all(pe["masked"] for pe in guest.status()["pes"])
        with pytest.raises(NotDeliveredError):
            guest.inject(0, 1, wait=True, timeout=1)
        assert guest.explain().picture.misbehaves.startswith("profile agdi-eio")


def calls(guest: Guest, function: str) -> int:
    return sum(pe["calls"].get(function, 0) for pe in guest.status()["pes"])
