"""Linux sleeps: suspend to idle and to RAM, with events registered and arriving (conformance 89)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.guest.status import VcpuStatus
from tests.guest.client import Client
from tests.guest.guests import until
from tests.guest.test_power import linux

pytestmark = pytest.mark.guest

Status = list[VcpuStatus]
"""Of each PE."""


def sleep(client: Client, state: str, asleep: Callable[[Status], bool]) -> None:
    """Write `state` to /sys/power/state; the clock wakes the guest two seconds later. When it is `asleep`, inject into
    each CPU that is on: it is masked, so the event waits until the guest is awake.
    """
    guest = client.guest
    delivered = guest.status()["counts"]["delivered"]
    with ThreadPoolExecutor(1) as pool:
        command = f"echo +2 >/sys/class/rtc/rtc0/wakealarm; echo {state} >/sys/power/state"
        done = pool.submit(client.shell, command)
        until("the guest is asleep", lambda: asleep(guest.status()["pes"]))
        on = [pe for pe, entry in enumerate(guest.status()["pes"]) if entry["on"]]
        for pe in on:
            guest.inject(0, pe)
        done.result(30)
    until("the events are handled", lambda: guest.status()["counts"]["completed"] >= delivered + len(on))


@pytest.mark.slow
@pytest.mark.parametrize("series", ["6.12", "6.1"])
def test_events_survive_sleep(series: str) -> None:
    """Registrations and enables are kept; what was injected meanwhile is delivered once, after waking."""
    with linux(series, smp=2) as client:
        client.load("verbose=0")
        sleep(client, "freeze", lambda pes: all(pe["masked"] and pe["on"] for pe in pes))
        assert [client.count(cpu) for cpu in (0, 1)] == [(1, 1), (1, 1)]
        sleep(client, "mem", lambda pes: "SYSTEM_SUSPEND" in pes[0]["calls"])
        assert client.count(0) == (2, 2)
        calls = client.guest.status()["pes"][0]["calls"]
        assert calls["SYSTEM_SUSPEND"] == 1
        for cpu in (0, 1):
            client.guest.inject(0, cpu, wait=True)
        assert client.count(0) == (3, 3)
        assert client.shell("cat /sys/devices/system/cpu/online").strip() == "0-1"


@pytest.mark.slow  # sleep by itself is a scenario of the conformance guest
@pytest.mark.timeout(300)
@pytest.mark.parametrize("disturb", ["migrate", "backend"])
def test_a_guest_that_sleeps_sleeps_on(disturb: str) -> None:
    """A guest in SYSTEM_SUSPEND is woken by its clock, neither by a migration nor by another backend; and it is then as
    it was.
    """
    with linux("6.12", smp=2) as client:
        client.load("verbose=0")
        # On a busy machine the alarm may come before all is done: then once more, with a later one.
        tries = (disturbed_in_sleep(client, disturb, alarm) for alarm in (6, 20, 60))
        assert next(slept for slept in tries if slept is not None)
        until("the event is handled", lambda: client.count(0)[0] > 0)
        assert client.count(0)[0] == client.guest.status()["counts"]["completed"]
        for cpu in (0, 1):
            assert client.guest.inject(0, cpu, wait=True, timeout=20).outcome == "completed"


def disturbed_in_sleep(client: Client, disturb: str, alarm: int) -> bool | None:
    """Whether the guest slept on, and took no event, for `alarm` seconds; None: that was over too soon."""
    guest = client.guest
    before = guest.status()["pes"][0]["calls"].get("SYSTEM_SUSPEND", 0)
    begin = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        command = f"echo +{alarm} >/sys/class/rtc/rtc0/wakealarm; echo mem >/sys/power/state"
        done = pool.submit(guest.run, command, timeout=120)
        until("the guest is asleep", lambda: guest.status()["pes"][0]["calls"].get("SYSTEM_SUSPEND", 0) > before)
        if disturb == "migrate":
            guest.migrate()
        else:
            backend = guest.backend_pid
            assert backend is not None
            os.kill(backend, signal.SIGKILL)
            until("another one serves it", lambda: guest.backend_pid not in (None, backend))
        try:
            guest.inject(0, 0, wait=True, timeout=1)
            slept = False
        except NotDeliveredError:
            slept = True
        late = time.monotonic() > begin + alarm - 1  # its clock has seconds
        done.result()
    return None if late else slept
