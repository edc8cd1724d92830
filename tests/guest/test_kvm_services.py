"""What a stock Linux finds of a hypervisor: KVM's own calls, cross timestamps, stolen time; and what is withheld."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from qemu_sdei import Guest, GuestOptions
from qemu_sdei.backend.loop.vcpu_threads import VcpuThreads
from qemu_sdei.guest import machine_control
from qemu_sdei.monitor.doorbell import Doorbell
from qemu_sdei.monitor.layout import PV_TIME_OFFSET
from qemu_sdei.rundir import find
from scripts.benchlib.services import crosstime
from tests.guest.guests import until

pytestmark = [
    pytest.mark.guest,
    pytest.mark.usefixtures("linux"),
    pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64"),
]
RECORDS = 0x7FE0_0000 + PV_TIME_OFFSET
"""Of a guest with 1 GiB."""
SERVICES = "smccc: KVM: hypervisor services detected"
STOLEN = "arm-pv: using stolen time PV"
SERIES = ["6.1", pytest.param("6.12", marks=pytest.mark.slow)]
TICK_NS = 10_000_000
"""Of /proc/stat."""


@contextmanager
def _linux(tmp_path: Path, series: str, selection: Sequence[str] = (), *, hypervisor: bool = True) -> Iterator[Guest]:
    program = crosstime(tmp_path / "crosstime")
    options = GuestOptions(series=series, hypervisor=hypervisor, selection=selection, files={"/bin/crosstime": program})
    with Guest(options) as guest:
        guest.wait_shell()
        yield guest


def _shell(guest: Guest, command: str) -> str:
    result = guest.run(command)
    assert result.status == 0, f"{command}: {result.status} {result.output}"
    return result.output


def _moments(guest: Guest, count: int) -> list[list[int]]:
    """Cross timestamps: the device's time, the guest's real time, its raw monotonic time."""
    before = time.time_ns()
    lines = _shell(guest, f"crosstime {count}").splitlines()
    after = time.time_ns()
    found = [[int(word) for word in line.split()] for line in lines if re.fullmatch(r"\d+ \d+ \d+", line)]
    assert len(found) == count, lines
    # The call took place in between, and the host's time of it is known from below.
    assert all(before <= device <= after for device, _, _ in found), (before, after, found)
    return found


def _steal(guest: Guest) -> int:
    """Nanoseconds that were stolen, by the guest's own account."""
    return int(_shell(guest, "head -1 /proc/stat").split()[8]) * TICK_NS


def _threads(guest: Guest) -> list[Path]:
    """The vCPUs' threads."""
    return [
        folder
        for folder in Path(f"/proc/{guest.qemu_pid}/task").iterdir()
        if (folder / "comm").read_text().startswith("CPU ")
    ]


def _waited(guest: Guest) -> int:
    """Nanoseconds for which the host let them wait, by its own account."""
    return sum(int((folder / "schedstat").read_text().split()[1]) for folder in _threads(guest))


@contextmanager
def _contended(guest: Guest) -> Iterator[None]:
    """All vCPUs have one of the host's CPUs, and another process wants it too."""
    cpus = os.sched_getaffinity(0)
    cpu = min(cpus)
    for folder in _threads(guest):
        os.sched_setaffinity(int(folder.name), {cpu})
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"], stdout=subprocess.DEVNULL)
    try:
        os.sched_setaffinity(hog.pid, {cpu})
        yield
    finally:
        hog.kill()
        hog.wait()
        for folder in _threads(guest):
            os.sched_setaffinity(int(folder.name), cpus)


@pytest.mark.parametrize("series", SERIES)
def test_all_there_are(tmp_path: Path, series: str) -> None:
    with _linux(tmp_path, series) as guest:
        log = _shell(guest, "dmesg")
        assert f"{SERVICES} (0x00000000 0x00000000 0x00000000 0x00000003)" in log
        assert STOLEN in log
        assert _shell(guest, "cat /sys/class/ptp/ptp0/clock_name") == "KVM virtual PTP\n"
        _moments(guest, 50)

        with _contended(guest):
            before = _steal(guest)
            until("time is stolen", lambda: _steal(guest) > before)
        assert 0 < _steal(guest) <= _waited(guest) + len(_threads(guest)) * TICK_NS
        # The record can be read and not written.
        assert int(_shell(guest, f"devmem {RECORDS + 8:#x} 64"), 16) > 0
        assert guest.run(f"devmem {RECORDS + 8:#x} 64 0").status == 128 + 7, "SIGBUS"

        guest.migrate()
        _moments(guest, 20)
        assert _steal(guest) >= before


def test_a_qemu_of_the_users_own_and_its_threads_are_found(runtime: Path) -> None:
    """It made its doorbell's socket itself, so that the backend knows it by that."""
    path = runtime / "doorbell"
    words = ["-machine", "virt", "-smp", "2", "-S", "-nodefaults", "-display", "none", "-name", "debug-threads=on"]
    qemu = subprocess.Popen(
        ["qemu-system-aarch64", *words, "-serial", f"unix:{path},server=on,wait=off"], stdin=subprocess.DEVNULL
    )
    try:
        doorbell = Doorbell(str(path), 30)
        assert doorbell.server() == qemu.pid
        threads = VcpuThreads(lambda: (doorbell.server(),), 2)
        until("the vCPUs' threads are there", lambda: threads.waited().keys() == {0, 1})
        doorbell.close()
    finally:
        qemu.kill()
        qemu.wait()


@pytest.mark.slow
@pytest.mark.parametrize("series", ["6.1", "6.12"])
@pytest.mark.parametrize(
    ("selection", "features", "ptp", "stolen"),
    [
        (("vendor-hyp=func_feat",), 1, False, True),
        (("vendor-hyp=ptp",), None, False, True),
        (("std-hyp=",), 3, True, False),
        (("std=", "std-hyp=", "vendor-hyp="), None, False, False),
        (("vendor-hyp-2=discover_impl_ver,discover_impl_cpus",), 3, True, True),
    ],
    ids=["no-ptp", "no-features", "no-stolen-time", "nothing", "implementations"],
)
def test_each_is_gone_when_its_bit_is_cleared(
    tmp_path: Path, series: str, selection: Sequence[str], features: int | None, ptp: bool, stolen: bool
) -> None:
    with _linux(tmp_path, series, selection) as guest:
        log = _shell(guest, "dmesg")
        second = 3 if any(word.startswith("vendor-hyp-2") for word in selection) else 0
        found = f"{SERVICES} (0x00000000 {second:#010x} 0x00000000 {features or 0:#010x})"
        assert (found in log) if features else (SERVICES not in log)
        assert (guest.run("test -e /dev/ptp0").status == 0) is ptp
        assert (STOLEN in log) is stolen
        if not stolen:
            with _contended(guest):
                _shell(guest, "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done")
            assert _steal(guest) == 0


@pytest.mark.slow
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_by_smc_there_is_stolen_time_and_nothing_of_kvm(tmp_path: Path, series: str) -> None:
    with _linux(tmp_path, series, hypervisor=False) as guest:
        log = _shell(guest, "dmesg")
        assert STOLEN in log
        assert SERVICES not in log
        assert guest.run("test -e /dev/ptp0").status != 0
        with _contended(guest):
            before = _steal(guest)
            until("time is stolen", lambda: _steal(guest) > before)
        assert _steal(guest) <= _waited(guest) + len(_threads(guest)) * TICK_NS
        before_reset = _waited(guest)
        guest.reset()
        guest.wait_shell()
        assert _steal(guest) <= _waited(guest) - before_reset + len(_threads(guest)) * TICK_NS, "it begins with 0"


@pytest.mark.slow
def test_cross_timestamps_begin_anew_after_a_stop_and_a_reset(tmp_path: Path) -> None:
    with _linux(tmp_path, "6.12") as guest:
        _moments(guest, 20)
        found = find(guest.name)
        assert machine_control.pause(found.owner, found.identity) == machine_control.PAUSED
        time.sleep(0.3)  # the host's time goes on, and the guest's counter does not
        assert machine_control.resume(found.owner, found.identity) == machine_control.RUNNING
        _moments(guest, 20)
        guest.reset()
        guest.wait_shell()
        _moments(guest, 20)
