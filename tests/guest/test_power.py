"""Power: CPUs that go and come under events, resets from inside and outside at any moment, standby."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import storm_ended, until
from tests.guest.load import EventLoad, at_rest

pytestmark = pytest.mark.guest

TROUBLE = re.compile(r"\b(BUG|Oops|WARNING|Call trace|stall|lockup)\b")

KNOWN = "dl_rq->running_bw > old"
"""A warning of 6.12's scheduler when a CPU goes off, with or without us."""


@contextmanager
def linux(series: str = "6.1", smp: int = 3, append: str = "") -> Iterator[Client]:
    """Linux with the client module at hand, a silent console, and a clean log in the end."""
    with Guest(GuestOptions(series=series, smp=smp, append=append, files={KO: module_for(series)})) as guest:
        client = Client(guest)
        client.shell("dmesg -n 1")
        yield client
        log = client.shell("dmesg")
        assert KNOWN in log or not TROUBLE.search(log), log


def check_sdei_works(client: Client, cpus: int) -> None:
    """After a reset: nothing is registered; then it can be, and events arrive on every CPU."""
    assert client.registered(0) == [False] * cpus
    client.load("verbose=0")
    for cpu in range(cpus):
        client.guest.inject(0, cpu, wait=True, timeout=30)
    assert [client.count(cpu) for cpu in range(cpus)] == [(1, 1)] * cpus


# ---- CPUs -----------------------------------------------------------------------------------------------------------


def check_hotplug_under_events(series: str, rounds: int) -> None:
    """Each CPU in turn goes off and comes back while events arrive everywhere; what was delivered was all handled."""
    cpus = 3
    with linux(series, cpus) as client:
        client.load("events=0,0x100 verbose=0")
        with EventLoad(client.guest, (0, 0x100), cpus) as load:
            for _ in range(rounds):
                for cpu in range(cpus):
                    online = f"/sys/devices/system/cpu/cpu{cpu}/online"
                    client.shell(f"echo 0 >{online} && echo 1 >{online}")
        assert load.delivered > 0
        assert all("off" in reason or "not registered" in reason for reason in load.refused), load.refused
        counts = at_rest(client.guest)
        handled = [client.count(cpu, event) for cpu in range(cpus) for event in (0, 0x100)]
        assert counts["delivered"] == counts["completed"] == sum(began for began, _ in handled)
        assert all(began == returned for began, returned in handled)
        assert counts["rejected"] == 0
        for cpu in range(cpus):
            client.guest.inject(0x100, cpu, wait=True)


def test_each_cpu_goes_off_and_on_under_events() -> None:
    check_hotplug_under_events("6.12", 1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_each_cpu_goes_off_and_on_under_events_for_long(series: str) -> None:
    check_hotplug_under_events(series, 200)


@pytest.mark.slow  # that the reason is given is seen under events, too
def test_event_for_a_cpu_that_is_off_is_refused_with_the_reason() -> None:
    with linux(smp=2) as client:
        client.load()
        client.shell("echo 0 >/sys/devices/system/cpu/cpu1/online")
        with pytest.raises(NotDeliveredError, match="PE 1 is off"):
            client.guest.inject(0, 1)
        client.shell("echo 1 >/sys/devices/system/cpu/cpu1/online")
        client.guest.inject(0, 1, wait=True)


# ---- Linux resets itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "append", "call"),
    [
        pytest.param("reboot -f", "", "SYSTEM_RESET", marks=pytest.mark.slow),
        ("reboot", "reboot=warm", "SYSTEM_RESET2"),
        # As a panic with panic=1 (test_life_crash.py).
        pytest.param("echo b >/proc/sysrq-trigger", "", "SYSTEM_RESET", marks=pytest.mark.slow),
    ],
    ids=["reboot -f", "warm reboot", "sysrq"],
)
def test_reboot_with_events_registered(command: str, append: str, call: str) -> None:
    """The second boot finds a firmware that remembers nothing of the first, but counts it."""
    with linux(smp=2, append=append) as client:
        guest = client.guest
        client.load("events=0,0x100,0x200")
        client.do("run-for 1000000")
        guest.inject(0x200, 1)
        guest.write(command + "\r")
        until("the guest resets itself", lambda: guest.resets)
        client.shell("dmesg -n 1")
        status = guest.status()
        assert status["epoch"] == 2
        assert [(reset["guest"], reset["reason"]) for reset in guest.resets] == [(True, "guest-reset")]
        assert any(call in pe["calls"] for pe in status["pes"])
        assert "sdei: SDEIv1.1" in client.shell("dmesg")
        check_sdei_works(client, 2)


# ---- resets from outside --------------------------------------------------------------------------------------------


def test_reset_button_at_any_moment_of_a_storm_of_calls() -> None:
    """Wherever the CPUs are, in the guest, in the monitor, in an answer half written: the next boot is a clean one."""
    options = GuestOptions(kernel="builtin:bench", append="mode=storm count=60000 smp=3", smp=3, memory="128M")
    moments = random.Random(1)
    resets = 10
    with Guest(options) as guest:
        for n in range(1, resets + 1):
            epoch = n
            until("the guest boots", lambda epoch=epoch: guest.status()["epoch"] == epoch)
            if n % 4:  # else while it still starts
                calls = guest.status()["counts"]["calls"]
                until("it calls", lambda calls=calls: guest.status()["counts"]["calls"] > calls)
            time.sleep(moments.random() * 0.05)
            guest.reset()
        off = storm_ended(guest)
        console = guest.console
    assert off.guest
    assert "FAIL" not in console
    assert re.search(r"^storm: ok calls=\d+ handled=\d+$", console.replace("\r", ""), re.MULTILINE), console


MOMENTS = (("smp: Bringing up secondary CPUs", None), ("Booting Linux", "sdei: SDEIv1.1"))
"""The last line of the boot before the button is pressed; None: it has booted."""


@pytest.mark.parametrize("moments", [MOMENTS[0], pytest.param(MOMENTS[1], marks=pytest.mark.slow)])
def test_reset_button_while_linux_boots_and_works(moments: tuple[str | None, ...]) -> None:
    cpus = 2
    with linux(smp=cpus) as client:
        guest = client.guest
        client.load("events=0,0x100 verbose=0")
        for last in moments:
            position = guest.console_text.end
            with EventLoad(guest, (0, 0x100), cpus):
                guest.reset()
                if last is not None:
                    guest.console_text.search(re.escape(last), position, 60)
        client.shell("dmesg -n 1")
        assert guest.status()["epoch"] == 1 + len(moments)
        check_sdei_works(client, cpus)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_reset_button_at_many_random_moments_of_a_boot() -> None:
    moments = random.Random(2)
    with linux(smp=4) as client:
        guest = client.guest
        for _ in range(60):
            time.sleep(moments.random() ** 2 * 2)
            guest.reset()
        client.shell("dmesg -n 1")
        check_sdei_works(client, 4)


# ---- bare metal -----------------------------------------------------------------------------------------------------


def call(words: str) -> tuple[str, object]:
    """One call of the bench guest; its console and how the machine ended."""
    options = GuestOptions(kernel="builtin:bench", append=f"mode=call {words}", smp=1, memory="128M", reboot=False)
    with Guest(options) as guest:
        off = guest.wait_off(30)
        return guest.console.replace("\r", ""), (off.reason, off.guest)


OFF = ("guest-shutdown", True)
RESET = ("guest-reset", True)


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ("function=0x84000008", OFF),
        ("function=0x84000009", RESET),
        ("function=0x84000012 a1=0", RESET),
        ("function=0xc4000012 a1=0 a2=77", RESET),
    ],
    ids=["SYSTEM_OFF", "SYSTEM_RESET", "SYSTEM_RESET2 (32)", "SYSTEM_RESET2 (64)"],
)
def test_system_calls_do_not_return(words: str, end: object) -> None:
    assert call(words) == ("", end)


@pytest.mark.parametrize("reset_type", ["1", "0x80000000", "0x80000001"])
def test_resets_of_other_types_are_refused(reset_type: str) -> None:
    console, end = call(f"function=0xc4000012 a1={reset_type}")
    assert console.startswith("call: x0=0xfffffffffffffffe ")  # INVALID_PARAMETERS
    assert end == OFF


def test_standby_lasts_until_an_interrupt_comes() -> None:
    console, end = call("function=0xc4000001 a1=0 wake_us=20000")
    assert console == "call: the timer has expired\ncall: x0=0x0 x1=0x0 x2=0x0 x3=0x0\n"
    assert end == OFF


def test_standby_outlasts_kicks_of_other_cpus() -> None:
    """CPU 0 hears the doorbell for all. What is for another CPU is no interrupt of this one."""
    append = "mode=call function=0xc4000001 a1=0 wake_us=2000000"
    with Guest(GuestOptions(kernel="builtin:bench", append=append, smp=2, memory="128M", reboot=False)) as guest:
        until("CPU 0 is in standby", lambda: "CPU_SUSPEND" in guest.status()["pes"][0]["calls"])
        with ControlClient(rundir.find(guest.name).control) as client:
            for _ in range(5):
                client.look([1])
                until("CPU 1 has come", lambda: client.look([1], ask=False)["waiting"] == [])
        guest.wait_off(30)
        assert guest.console.replace("\r", "").startswith("call: the timer has expired\n")


def test_a_power_level_that_is_not_there_is_refused() -> None:
    console, _ = call("function=0xc4000001 a1=0x3010000 a2=0x40200000")
    assert console.startswith("call: x0=0xfffffffffffffffe ")
