"""Lives on the crash path: a CPU that hangs with interrupts off is found and told of, an NMI ends a machine, and what
the crash finds armed (an event whose interrupt is a level, and fires) is in nobody's way afterwards.

What there is besides: a panic under events (`test_life_crash.py`), resets and CPUs that come and go (`test_power.py`),
sleep (`test_suspend.py`), kexec and kdump (`test_kexec.py`, `test_vmcore.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.sdei_client import MAX_NS, SdeiClient
from qemu_sdei.guest.sdei_where import Where, places
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vmcore.dump import Dump
from tests.guest.guests import until
from tests.guest.test_power import KNOWN, TROUBLE

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux"), pytest.mark.timeout(240)]

CPUS = 3
BARKS_MS = 1000
BOUND = 0x4000_0000
"""Numbers of bound events begin here (DEN0054 4.4)."""
CONTROL = "/proc/sdei_test/control"
SERIES = [pytest.param("6.1", marks=pytest.mark.slow), "6.12"]


def in_the_loop(where: Where, cpu: int) -> bool:
    """Whether it is that CPU in the module's loop with interrupts off."""
    loop = any(line.startswith("spin+") and line.endswith("[sdei_test]") for line in (where.lr, *where.stack))
    return where.cpu == cpu and where.irqs_masked and loop and where.comm.startswith("kworker/")


def ticks(client: SdeiClient) -> list[int]:
    """How often the bound timer of each CPU has come."""
    lines = client.shell("cat /proc/sdei_test/lockups").splitlines()
    return [int(line.split()[3]) for line in lines if line.startswith("cpu ")]


def while_locked_up(guest: Guest, cpu: int) -> tuple[Where, list[Where], str]:
    """The lockup of a CPU as it is found, where all CPUs are then, and what the log says; in one command, as the loop
    lasts ten seconds. On a busy host they may be over before the end of it: then once more.
    """
    command = (
        f"cd /proc/sdei_test; echo irqs-off {cpu} {MAX_NS} >control; n=0; "
        f"until grep -q '^lockup cpu {cpu}' lockups || [ $n -gt 400 ]; do n=$((n+1)); done; echo backtrace >control; "
        "cat lockups; echo ----; cat backtrace; echo ----; dmesg | grep 'SDEI TEST'; cd"
    )
    for left in reversed(range(4)):
        lockups, backtrace, log = guest.run(command, 120).output.split("----\n")
        found, everyone = places(lockups.splitlines()), places(backtrace.splitlines())
        if not left or (found and len(everyone) == CPUS and in_the_loop(everyone[cpu], cpu)):
            return found[0], everyone, log
        guest.run("sleep 10", 120)
    raise AssertionError


def check_clean(guest: Guest, client: SdeiClient) -> None:
    """The kernel that runs now finds a firmware that remembers no event, and can bind the timer anew on all CPUs."""
    assert not any(i["registered"] for event in guest.status()["events"] for i in event["instances"])
    client.load([0], verbose=0)
    client.watchdog(BARKS_MS)
    until("the timers of all CPUs come", lambda: len(ticks(client)) == CPUS and all(ticks(client)), 60)
    for vcpu in range(CPUS):
        assert guest.inject(0, vcpu, wait=True, timeout=30).outcome == "completed"
    assert client.lockups() == []
    client.watchdog_off()
    log = client.shell("dmesg")
    assert KNOWN in log or not TROUBLE.search(log), log


@pytest.mark.parametrize("series", SERIES)
def test_a_hard_lockup_is_told_of(series: str) -> None:
    with Guest(GuestOptions(series=series, smp=CPUS, client=True)) as guest:
        guest.run("dmesg -n 1")
        client = guest.sdei_client([0], verbose=0)
        client.watchdog(BARKS_MS)
        found, everyone, log = while_locked_up(guest, 2)
        assert in_the_loop(found, 2), found
        assert f"SDEI TEST: hard lockup on CPU 2: {found.stack[0]}" in log
        assert [where.cpu for where in everyone] == list(range(CPUS))
        assert in_the_loop(everyone[2], 2), everyone[2]
        assert any(line.startswith("backtrace_all+") for where in everyone for line in where.stack), "who asked"
        triggers = [record for record in guest.trace(4000) if record["type"] == "trigger" and record.get("vcpu") == 2]
        assert any(record["event"] >= BOUND for record in triggers), "the trace has the timer's event"
        client.watchdog_off()


@pytest.mark.slow
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_a_hard_lockup_panics_into_a_dump(series: str, tmp_path: Path) -> None:
    options = GuestOptions(
        series=series,
        smp=CPUS,
        client=True,
        kdump=True,
        kdump_timeout=400,
        vmcore=tmp_path / "core",
        boot_timeout=120,
    )
    with Guest(options) as guest:
        guest.run("dmesg -n 1")
        client = guest.sdei_client([0], verbose=0)
        client.watchdog(BARKS_MS, panic=True)
        guest.write(f"echo irqs-off 1 {MAX_NS} >{CONTROL}\r")
        core = guest.wait_vmcore(120)
    crash = Dump.read(core.path).crash
    assert crash is not None
    assert crash.cpu == 1
    assert crash.message.startswith("SDEI TEST: hard lockup on CPU 1: ")


def restart_in_an_nmi(guest: Guest, client: SdeiClient) -> None:
    client.restart()
    guest.inject(0, 1)


def panic_in_an_nmi(guest: Guest, client: SdeiClient) -> None:
    client.panic()
    guest.inject(0, 1)


def warm_reboot(guest: Guest, client: SdeiClient) -> None:
    guest.write("reboot\r")


@pytest.mark.slow  # resets with events registered: test_power.py
@pytest.mark.parametrize(
    ("series", "end", "append", "call"),
    [
        ("6.12", restart_in_an_nmi, "", "SYSTEM_RESET"),
        ("6.1", restart_in_an_nmi, "", "SYSTEM_RESET"),
        ("6.12", panic_in_an_nmi, "panic=1", "SYSTEM_RESET"),
        ("6.1", panic_in_an_nmi, "panic=1", "SYSTEM_RESET"),
        ("6.12", warm_reboot, "reboot=warm", "SYSTEM_RESET2"),
        ("6.1", warm_reboot, "reboot=warm", "SYSTEM_RESET2"),
    ],
)
def test_a_reset_with_bound_timers_that_fire(
    series: str, end: Callable[[Guest, SdeiClient], None], append: str, call: str
) -> None:
    options = GuestOptions(series=series, smp=CPUS, client=True, append=append, on_panic="continue")
    with Guest(options) as guest:
        guest.run("dmesg -n 1")
        client = guest.sdei_client([0, 0x100, 0x200], verbose=0)
        client.watchdog(BARKS_MS)
        until("the timers of all CPUs come", lambda: all(ticks(client)), 60)
        end(guest, client)
        until("the guest resets itself", lambda: guest.resets, 90)
        assert [(reset["guest"], reset["reason"]) for reset in guest.resets] == [(True, "guest-reset")]
        guest.wait_shell()
        guest.run("dmesg -n 1")
        status = guest.status()
        assert (status["epoch"], status["kernels"]) == (2, 1)
        assert sum(pe["calls"].get(call, 0) for pe in status["pes"]) == 1
        check_clean(guest, client)


@pytest.mark.slow
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_cpus_that_go_and_come_are_watched_again(series: str) -> None:
    """Linux unregisters a CPU's private events as it goes and registers them as it comes back: the bound timer too."""
    with Guest(GuestOptions(series=series, smp=CPUS, client=True)) as guest:
        guest.run("dmesg -n 1")
        client = guest.sdei_client([0], verbose=0)
        client.watchdog(BARKS_MS)
        for cpu in (1, 2, 1):
            path = f"/sys/devices/system/cpu/cpu{cpu}/online"
            assert guest.run(f"echo 0 >{path}", 60).status == 0
            for other in range(CPUS):
                if other != cpu:
                    assert guest.inject(0, other, wait=True, timeout=30).outcome == "completed"
            assert guest.run(f"echo 1 >{path}", 60).status == 0
            before = ticks(client)
            until(
                "the timers of all CPUs come",
                lambda before=before: len(now := ticks(client)) == CPUS and all(map(int.__gt__, now, before)),
                60,
            )
        assert client.lockups() == []
        client.watchdog_off()
        log = client.shell("dmesg")
        assert KNOWN in log or not TROUBLE.search(log), log
