"""Answers that the monitor gives by itself, in real guests: right, counted, and there when no backend is."""

from __future__ import annotations

import os
import signal

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import until

pytestmark = pytest.mark.guest


def bench(append: str, smp: int, *, hypervisor: bool = False) -> GuestOptions:
    return GuestOptions(kernel="builtin:bench", append=append, memory="64M", smp=smp, hypervisor=hypervisor)


@pytest.mark.parametrize("conduit", ["smc", "hvc"])
def test_no_state_that_is_over_is_told_and_each_call_is_counted(conduit: str) -> None:
    """CPU 0 changes an event, CPU 1 asks for its status all the time and looks at its other registers, too."""
    words = f"mode=ready count=1000 smp=2 stay=1 conduit={conduit}"
    with Guest(bench(words, 2, hypervisor=conduit == "hvc")) as guest:
        match = guest.expect(r"ready: ok changes=(\d+) judged=(\d+)\s", 120)
        assert int(match[1]) == 1000
        assert int(match[2]) > 100
        calls = guest.status()["pes"][1]["calls"]["SDEI_EVENT_STATUS"]
        until("all is told", lambda: _counted(guest) > 0)
        # Those that were posted are recorded one by one.
        assert calls // 2 < _counted(guest) < calls


def _counted(guest: Guest) -> int:
    found = (record for record in guest.trace(8192) if record["type"] == "counted")
    return sum(int(record["count"]) for record in found if record["function"] == "SDEI_EVENT_STATUS")


def test_they_are_there_while_the_backend_is_not() -> None:
    """It is stopped: the guest calls on all the same, as with firmware of its own. What follows waits for it."""
    with Guest(bench("mode=hot count=1000000", 1)) as guest:
        until("it calls", lambda: guest.status()["pes"][0]["calls"].get("SDEI_VERSION", 0) > 100)
        pid = guest.backend_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            guest.expect(r"hot: count=1000000 ", 120)
            assert guest.power_off is None
        finally:
            os.kill(pid, signal.SIGCONT)
        until("it is off", lambda: guest.power_off is not None)


def test_who_follows_the_trace_sees_each_call() -> None:
    with Guest(bench("mode=hot count=1000000000", 1)) as guest:
        until("the monitor answers", lambda: _calls(guest) > 10000)
        with guest.client() as client:
            client.request("follow")
            until("it is posted", lambda: guest.trace(1)[-1].get("function") == "SDEI_VERSION")


def _calls(guest: Guest) -> int:
    return int(guest.status()["pes"][0]["calls"].get("SDEI_VERSION", 0))
