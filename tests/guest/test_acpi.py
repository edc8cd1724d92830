"""Linux booted by ACPI: what the kernel says of its tables, beside what it says when EDK II gave them to it."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from qemu_sdei.acpi.own import GhesSource, own_tables
from qemu_sdei.acpi.table import Oem
from qemu_sdei.errors import LaunchError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.sdei.machine_description import MachineDescription
from qemu_sdei.vm.options import GuestOptions
from tests.guest.acpi_guest import area_of, digests, emitted, modules, seen_by_linux
from tests.guest.client import KO, Client, module_for
from tests.guest.edk2 import edk2_log, warnings
from tests.guest.guests import until
from tests.guest.test_cpus import START, booted, check_events

pytestmark = pytest.mark.guest

LOG = (
    " by qemu-sdei",
    "psci: probing for conduit method from ACPI.",
    "psci: PSCIv1.1 detected in firmware.",
    "psci: SMC Calling Convention v1.2",
    "sdei: SDEIv1.1 (0x4b564d) detected in firmware.",
    "HEST: Table parsing has been initialized.",
    "GHES: APEI firmware first mode is enabled by APEI bit and WHEA _OSC.",
    "ACPI: Interpreter enabled",
)
GHES = 0x324


def check_log(log: str, cpus: int, el: int = 1) -> None:
    """The kernel's own words."""
    for line in (*LOG, f"smp: Brought up 1 node, {cpus} CPU", f"CPU: All CPU(s) started at EL{el}"):
        assert line in log, f"{line!r} is not in the kernel's log:\n{log}"
    for signature in ("SDEI", "HEST", "AGDI", "FACP", "DSDT", "APIC", "GTDT", "MCFG"):
        assert re.search(rf"ACPI: {signature} 0x[0-9A-F]{{16}} ", log), f"no {signature}:\n{log}"


def options(series: str, **more: object) -> GuestOptions:
    """A guest that boots by ACPI, with the client module at hand."""
    values: dict[str, object] = {"series": series, "boot": "acpi", "files": {KO: module_for(series)}} | more
    return GuestOptions(**values)  # type: ignore[arg-type]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("series", [pytest.param("6.1", marks=pytest.mark.slow), "6.12"])
def test_linux_has_our_tables(series: str) -> None:
    with booted(options(series, append="quiet")) as client:
        guest = client.guest
        log = client.shell("dmesg -r")
        check_log(log, 2)
        tables = emitted(guest)
        assert {"SDEI", "HEST", "AGDI", "FACP", "DSDT", "APIC"} <= set(tables)
        assert seen_by_linux(guest) == digests(tables)
        (source,) = area_of(guest).sources(MachineDescription.default().sources)
        ours = own_tables(
            oem=Oem(b"BOCHS ", b"BXPC    "),
            ghes=[GhesSource(GHES, source.address_register, source.block_size, source.read_ack)],
            agdi_event=0x325,
            firmware_first=True,
        )
        for table in ours:
            assert tables[table.signature] == table.to_bytes()
        assert client.registered(GHES) == [True], "Linux's GHES driver has registered the event that the HEST names"
        start, size = area_of(guest).status
        assert f"{start:x}-{start + size - 1:x} : reserved" in client.shell("cat /proc/iomem")
        check_events(client, 2)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_linux_complains_of_nothing_more_than_with_edk2(series: str) -> None:
    with booted(options(series, append="quiet")) as client:
        log = client.shell("dmesg -r")
        assert not warnings(log) - warnings(edk2_log(series)), "warnings that EDK II's boot does not have"


@pytest.mark.timeout(300)
def test_ras_boots_by_acpi_and_power_off_and_resets_go_by_psci() -> None:
    opts = GuestOptions(series="6.1", ras=True, files={KO: module_for("6.1")})
    with Guest(opts) as guest:
        client = Client(guest)
        client.shell("dmesg -n 1")
        first = seen_by_linux(guest)
        client.load("events=0 verbose=0")
        guest.write("reboot -f\r")
        until("the guest resets itself", lambda: guest.resets)
        client.shell("dmesg -n 1")
        guest.reset()
        client.shell("dmesg -n 1")
        assert (guest.resets[0]["guest"], guest.resets[0]["reason"]) == (True, "guest-reset")
        assert guest.status()["epoch"] == 3
        assert seen_by_linux(guest) == first == digests(emitted(guest))
        check_log(client.shell("dmesg"), 2)
        check_events(client, 2)
        off = guest.poweroff()
        assert off.guest
        assert off.reason == "guest-shutdown"


@pytest.mark.slow  # by device tree in test_devices.py
@pytest.mark.timeout(300)
def test_disk_and_network_on_pcie(tmp_path: Path) -> None:
    """Both devices are found by the ECAM of the MCFG and get their interrupts by the ITS of MADT and IORT."""
    disk = tmp_path / "disk"
    disk.write_bytes(random.Random(3).randbytes(1 << 20))
    names = ("virtio_blk", "failover", "net_failover", "virtio_net")
    files = modules("6.12", *names)
    opts = options(
        "6.12",
        files=files,
        qemu_args=(
            "-drive", f"if=none,id=d,format=raw,file={disk}", "-device", "virtio-blk-pci,drive=d",
            "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile=",
        ),
    )  # fmt: skip
    with booted(opts) as client:
        for path in files:
            client.shell(f"insmod {path}")
        client.shell("until [ -b /dev/vda ]; do sleep 0.1; done")
        assert client.shell("md5sum </dev/vda").split()[0] == digests({"": disk.read_bytes()})[""]
        client.shell("echo changed | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null")
        assert disk.read_bytes()[:8] == b"changed\n"
        client.shell("ip link set eth0 up && ip address add 10.0.2.15/24 dev eth0")
        assert " 0% packet loss" in client.shell("ping -c 2 10.0.2.2")
        assert re.search(r"MSI.*virtio", client.shell("cat /proc/interrupts"))


SHAPES = [
    pytest.param("cortex-a53", "6.1", 1, "128M", False, marks=pytest.mark.smoke),
    pytest.param("neoverse-n1", "6.12", 6, "512M", True, marks=pytest.mark.slow),
    *(
        pytest.param(cpu, series, 2, "1G", False, marks=pytest.mark.slow)
        for cpu in ("cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "a64fx", "max")
        for series in ("6.1", "6.12")
    ),
    *(
        pytest.param(cpu, "6.12", 2, "1G", True, marks=pytest.mark.slow)
        for cpu in ("cortex-a76", "neoverse-n1", "a64fx", "max")
    ),
    pytest.param("cortex-a72", "6.1", 16, "2G", False, marks=pytest.mark.slow),
    pytest.param("cortex-a72", "6.12", 2, "16G", False, marks=pytest.mark.slow),
    pytest.param("cortex-a72", "6.1", 2, "16G", False, marks=pytest.mark.slow),
    pytest.param("cortex-a72", "6.1", 3, "1000008K", False, marks=pytest.mark.slow),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("cpu", "series", "cpus", "memory", "el2"), SHAPES)
def test_machines_of_all_shapes(cpu: str, series: str, cpus: int, memory: str, el2: bool) -> None:
    with booted(options(series, cpu=cpu, smp=cpus, memory=memory, virtualization=el2)) as client:
        check_log(client.shell("dmesg"), cpus, 2 if el2 else 1)
        assert seen_by_linux(client.guest) == digests(emitted(client.guest))
        check_events(client, cpus)


def kill_while_booting(rounds: int) -> None:
    """Kill the backend while it reads QEMU's tables, or a little earlier or later; every boot comes up."""
    moments = random.Random(7)
    with Guest(options("6.1", append="quiet")) as guest:
        client = Client(guest)
        client.shell("true")
        first = seen_by_linux(guest)
        for n in range(rounds):
            starts = guest.backend_starts
            guest.reset()
            time.sleep(moments.random() * 0.02)
            assert guest.backend_pid is not None
            os.kill(guest.backend_pid, signal.SIGKILL)
            until("a new backend serves", lambda starts=starts: guest.backend_starts > starts)
            guest.wait_shell(START)
            assert guest.status()["epoch"] == n + 2
            assert seen_by_linux(guest) == first
        assert not [note for note in guest.trace(4000) if note["type"] == "reject"]


@pytest.mark.timeout(300)
def test_backend_killed_while_it_reads_the_tables() -> None:
    kill_while_booting(1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_backend_killed_while_it_reads_the_tables_many_times() -> None:
    kill_while_booting(25)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sixty_four_cpus_are_described() -> None:
    """One is started by hand; a kernel with all of them online is too slow here."""
    with booted(
        options("6.12", smp=64, memory="2G", append="maxcpus=2", boot_timeout=300, start_timeout=100)
    ) as client:
        assert "ACPI: APIC" in client.shell("dmesg")
        client.shell("echo 1 >/sys/devices/system/cpu/cpu63/online")
        client.load("verbose=0")
        for cpu in (0, 1, 63):
            client.guest.inject(0, cpu, wait=True, timeout=30)


def test_machine_without_tables_is_told_so() -> None:
    with pytest.raises(LaunchError, match="no file etc/acpi/tables: is the machine built with acpi=off"):
        with Guest(options("6.1", qemu_args=("-machine", "acpi=off"))) as guest:
            guest.wait_shell(START)
