"""Which machines boot: CPU models, kernels, numbers of vCPUs, and EL2 as the guest's own level.

Each guest boots by device tree to its shell, has all its CPUs, and takes an event from the host on each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import until

pytestmark = pytest.mark.guest

MODELS = ("cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "a64fx", "max")
SERIES = ("6.1", "6.12")
MATRIX = [(cpu.replace("max", "max,pauth-impdef=on"), series) for cpu in MODELS for series in SERIES]
"""The normal suite has three of the models: Cortex-A72 with both kernels is what most other tests boot, A53 boots by
ACPI (test_acpi.py), and `max`, which has all that QEMU knows, at EL2 below. In the matrix `max` signs pointers by the
quick algorithm: with the other one, which QEMU 7.2 takes, half of its time goes into that.
"""
TROUBLE = re.compile(r"\b(BUG|Oops|WARNING|Call trace|stall|lockup|SANITY CHECK|Unexpected)\b")
START = 200.0
"""Seconds that a boot may take; most need 4."""


@contextmanager
def booted(options: GuestOptions) -> Iterator[Client]:
    """A guest whose shell is there, whose log says that all is well, then and in the end."""
    with Guest(options) as guest:
        guest.wait_shell(START)
        guest.run("dmesg -n 1")
        yield Client(guest)
        log = guest.run("dmesg").output
        assert not TROUBLE.search(log), log
        assert not [note for note in guest.trace(4000) if note["type"] == "reject"]
        off = guest.poweroff()
        assert off.guest


def check_boot_log(log: str, cpus: int, el: int) -> None:
    """The kernel's own words about its firmware."""
    for line in (
        "psci: PSCIv1.1 detected in firmware.",
        "psci: Trusted OS migration not required",
        "psci: SMC Calling Convention v1.2",
        f"smp: Brought up 1 node, {cpus} CPU",
        f"CPU: All CPU(s) started at EL{el}",
        "sdei: SDEIv1.1 (0x4b564d) detected in firmware.",
    ):
        assert line in log, f"{line!r} is not in the kernel's log:\n{log}"
    assert "[Firmware Bug]" not in log


def check_events(client: Client, cpus: int) -> None:
    """Every CPU is up and takes an event."""
    assert client.shell("cat /sys/devices/system/cpu/online").strip() == (f"0-{cpus - 1}" if cpus > 1 else "0")
    client.load("verbose=0")
    for cpu in range(cpus):
        assert client.guest.inject(0, cpu, wait=True, timeout=30).vcpu == cpu
    assert [client.count(cpu) for cpu in range(cpus)] == [(1, 1)] * cpus


@pytest.mark.timeout(300)
@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "series"), MATRIX)
def test_cpu_model_boots_and_takes_events(cpu: str, series: str) -> None:
    with booted(GuestOptions(cpu=cpu, series=series, files={KO: module_for(series)})) as client:
        check_boot_log(client.shell("dmesg"), 2, 1)
        check_events(client, 2)


@pytest.mark.slow  # what the firmware does at EL2 is a run of the conformance guest
@pytest.mark.timeout(300)
def test_linux_at_el2_with_vhe_takes_events_there() -> None:
    """With `virtualization=on` the client of SDEI is EL2: registrations, entry and completion are all there."""
    options = GuestOptions(cpu="max", series="6.12", virtualization=True, files={KO: module_for("6.12")})
    with booted(options) as client:
        check_boot_log(client.shell("dmesg"), 2, 2)
        client.load()
        client.guest.inject(0, 1, wait=True)
        ((cpu, lines),) = client.dumps()
        assert cpu == 1
        found = re.search(r"PSTATE: ([0-9a-f]{16})", lines[1])
        assert found
        assert int(found[1], 16) >> 2 & 3 in (0, 2), "interrupted at EL0 or EL2"
        client.unload()
        check_events(client, 2)


def test_linux_at_el2_without_vhe_has_no_use_for_sdei() -> None:
    """Such a kernel goes back to EL1, while SDEI's client is EL2: it is told so, and boots on."""
    options = GuestOptions(cpu="cortex-a72", series="6.1", virtualization=True, files={KO: module_for("6.1")})
    with booted(options) as client:
        log = client.shell("dmesg")
        assert "CPU: All CPU(s) started at EL2" in log
        assert "smp: Brought up 1 node, 2 CPUs" in log
        assert "sdei: disabling SDEI firmware interface" in log
        assert "detected in firmware" not in log.partition("sdei: ")[2]
        assert "No such device" in client.guest.run(f"insmod {KO}").output


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_twenty_cpus_are_more_than_one_cluster() -> None:
    """QEMU puts 16 CPUs into an Aff1 cluster: from CPU 16 on, affinities are no longer CPU numbers."""
    cpus = 20
    with booted(GuestOptions(smp=cpus, series="6.1", files={KO: module_for("6.1")})) as client:
        check_boot_log(client.shell("dmesg"), cpus, 1)
        check_events(client, cpus)
        for cpu in (17, 15, 16, 0):
            assert client.do(f"signal {cpu}") is None
            client.wait_count(cpu, began=2)
        assert [client.count(cpu)[0] for cpu in range(cpus)] == [
            2 if cpu in (0, 15, 16, 17) else 1 for cpu in range(20)
        ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cpus", [17, 124, 512])
def test_cpu_on_reaches_the_last_cpu(cpus: int) -> None:
    """A bare-metal guest, because Linux on so many CPUs is too slow here. 124 is one more than QEMU has redistributors
    in one place; 512 is all that it can have.
    """
    last = cpus - 1
    affinity, entry = last // 16 << 8 | last % 16, 0x4100_0000
    options = GuestOptions(
        kernel="builtin:bench",
        append=f"mode=call function=0xc4000003 a1={affinity:#x} a2={entry:#x} stay=1",
        smp=cpus,
        memory="256M",
        start_timeout=100,
    )
    with Guest(options) as guest:
        assert guest.expect(r"call: x0=(0x\w+) ", 100)[1] == "0x0"
        until("the last CPU starts", lambda: guest.status()["pes"][last]["power"] == "on", 100)
        powers = [pe["power"] for pe in guest.status()["pes"]]
        assert powers == ["on", *["off"] * (cpus - 2), "on"]
        assert not [note for note in guest.trace(4000) if note["type"] == "reject"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cpus", [123, 124])
def test_linux_with_as_many_cpus_as_fill_the_first_redistributor_region(cpus: int) -> None:
    """A kernel with all of them online is too slow here: the others wait in the monitor, and one is started by hand."""
    options = GuestOptions(
        smp=cpus,
        series="6.12",
        memory="2G",
        append="maxcpus=2",
        boot_timeout=300,
        start_timeout=100,
        files={KO: module_for("6.12")},
    )
    with booted(options) as client:
        check_boot_log(client.shell("dmesg"), 2, 1)
        chosen = (0, 1, 16, 122, cpus - 1)
        for cpu in chosen[2:]:
            client.shell(f"echo 1 >/sys/devices/system/cpu/cpu{cpu}/online")
        client.load("verbose=0")
        for cpu in chosen:
            client.guest.inject(0, cpu, wait=True, timeout=30)
            began = client.count(cpu)[0]
            assert client.do(f"signal {cpu}") is None
            client.wait_count(cpu, began=began + 1)
