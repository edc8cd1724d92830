"""A guest that runs as under a hypervisor: bare metal and Linux, above our EL2, by HVC."""

from __future__ import annotations

import shutil

import pytest

from qemu_sdei import Guest, GuestOptions
from qemu_sdei.conformance import run
from qemu_sdei.monitor.layout import EL2_OFFSET, FRAME_OFFSET, MONITOR_OFFSET
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import until
from tests.guest.test_conformance import NEEDS, check
from tests.guest.test_cpus import MATRIX, booted, check_boot_log, check_events

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64"),
]
WINDOW = 0x7FE0_0000
"""Of a guest with 1 GiB."""
METHODS = "cat /proc/device-tree/psci/method /proc/device-tree/firmware/sdei/method | tr '\\0' '\\n'"


@pytest.mark.parametrize(
    ("cpu", "append", "stage2"),
    [
        pytest.param("cortex-a72", "", True, marks=pytest.mark.smoke),
        pytest.param("max", "", True, marks=pytest.mark.slow),
        pytest.param("cortex-a72", "", False, marks=pytest.mark.slow),
        pytest.param("cortex-a72", "conduit=smc", True, marks=pytest.mark.slow),
    ],
    ids=["hvc", "max", "no-stage-2", "smc-past-EL2"],
)
def test_our_firmware_conforms(cpu: str, append: str, stage2: bool) -> None:
    options = GuestOptions(cpu=cpu, hypervisor=True, stage2=stage2, append=append, smp=4, memory="128M")
    check(run(options), set(NEEDS) - ({39} if cpu == "max" else set()))


def handled(client: Client, cpu: int) -> None:
    """Inject event 0 into a vCPU, and see its handler run there."""
    before, _ = client.count(cpu)
    client.guest.inject(0, cpu, wait=True)
    until(f"the handler on vCPU {cpu}", lambda: client.count(cpu) == (before + 1, before + 1))


@pytest.mark.usefixtures("linux")
@pytest.mark.parametrize("series", ["6.1", pytest.param("6.12", marks=pytest.mark.slow)])
def test_linux(series: str) -> None:
    """Its conduit, events on each vCPU, a vCPU that was off, and memory that is not its own."""
    options = GuestOptions(series=series, hypervisor=True, files={KO: module_for(series)})
    with Guest(options) as guest:
        client = Client(guest)
        assert client.shell(METHODS) == "hvc\nhvc\n"
        log = client.shell("dmesg")
        assert "CPU: All CPU(s) started at EL1" in log
        assert "sdei: SDEIv1.1 (0x4b564d) detected in firmware." in log
        client.shell(f"insmod {KO}")
        for cpu in (0, 1):
            handled(client, cpu)
        client.shell("echo 0 >/sys/devices/system/cpu/cpu1/online; echo 1 >/sys/devices/system/cpu/cpu1/online")
        handled(client, 1)
        for offset in (FRAME_OFFSET, MONITOR_OFFSET, EL2_OFFSET):
            result = guest.run(f"devmem {WINDOW + offset:#x} 32 0")
            assert result.status == 128 + 7, "SIGBUS"
        whys = [str(note["why"]) for note in guest.trace(4000) if note["type"] == "reject"]
        for offset in (FRAME_OFFSET, MONITOR_OFFSET, EL2_OFFSET):
            assert any(why.startswith(f"write to {WINDOW + offset:#x}, ") for why in whys), whys
        handled(client, 0)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("linux")
@pytest.mark.parametrize(("cpu", "series"), MATRIX)
def test_each_cpu_model(cpu: str, series: str) -> None:
    """All of the matrix have EL2; `max` has the most registers in which an EL2 can trap what Linux uses."""
    with booted(GuestOptions(cpu=cpu, series=series, hypervisor=True, files={KO: module_for(series)})) as client:
        check_boot_log(client.shell("dmesg"), 2, 1)
        check_events(client, 2)
