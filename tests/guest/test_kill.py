"""`kill -9` of the real backend at any moment: the guest waits a little, nothing is lost and nothing is done twice.

The judge is the guest: `mode=storm` of the bench guest checks each result against its own model (guest/bench/storm.c),
and in Linux the client module counts its handlers.
"""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time

import pytest

from qemu_sdei.errors import SdeiError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import storm_ended, until
from tests.guest.load import EventLoad

pytestmark = pytest.mark.guest

EVENT = 0x100


class Killer:
    """Kills the backend of one guest, again and again, at moments that a seed decides."""

    def __init__(self, guest: Guest, seed: int) -> None:
        self.guest = guest
        self.random = random.Random(seed)
        self.kills = 0
        self._early = False

    def kill(self) -> bool:
        """Kill the backend that serves now, a moment after it has begun to serve; False: the guest has ended.

        Now and then also one that is still starting, but never two of them in a row: a supervisor gives up in the end.
        """
        starts, pid = self.guest.backend_starts, self.guest.backend_pid
        self._early = not self._early and self.random.random() < 0.2
        if not self._early and not self._serves():
            return False
        time.sleep(self.random.random() * (0.15 if self._early else 0.03))
        if self.guest.power_off is not None or pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.kills += 1
        until("another backend", lambda: self.guest.backend_starts > starts or self.guest.power_off is not None)
        return True

    def _serves(self) -> bool:
        """Wait until the backend answers, and its supervisor, which asks it too, has had the time to hear it."""
        try:
            with self.guest.client() as client:
                client.connect_timeout = 30
                client.hello()
                client.hello()
                client.status()
        except SdeiError:
            return False
        return True


def kill_in_storm(seed: int, kills: int, smp: int = 2, virtualization: bool = False) -> int:
    """One storm with so many kills in it, or as many as it lasts for; returns how many."""
    options = GuestOptions(
        kernel="builtin:bench",
        append=f"mode=storm count=100000 smp={smp} seed={seed}",
        smp=smp,
        memory="128M",
        virtualization=virtualization,
    )
    with Guest(options) as guest:
        killer = Killer(guest, seed)
        while killer.kills < kills and killer.kill():
            pass
        off = storm_ended(guest)
        result = re.search(r"^storm: ok calls=(\d+) handled=(\d+)$", guest.console, re.MULTILINE)
        assert result, f"seed {seed}, {killer.kills} kills:\n{guest.console}"
        assert int(result[2]) > 0
        assert off.guest
        assert guest.backend_starts <= killer.kills + 1, "a backend died by itself"
        return killer.kills


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("smp", "virtualization"), [(2, False), pytest.param(3, True, marks=pytest.mark.slow)], ids=["EL1", "EL2"]
)
def test_killed_in_a_storm_of_calls(smp: int, virtualization: bool) -> None:
    kills, seed = 0, 1000 * smp
    while kills < 6:
        kills += kill_in_storm(seed, 6 - kills, smp, virtualization)
        seed += 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_a_thousand_times_in_storms_of_calls() -> None:
    kills, seed = 0, 5000
    while kills < 1000:
        kills += kill_in_storm(seed, 1000 - kills)
        seed += 1


def kill_under_linux(kills: int, seed: int) -> None:
    """Kill while the host injects one event, and the guest's CPUs signal another to each other."""
    cpus = 2
    with Guest(GuestOptions(series="6.1", smp=cpus, files={KO: module_for("6.1")})) as guest:
        client = Client(guest)
        client.shell("dmesg -n 1")
        client.load(f"events=0,{EVENT} verbose=0")
        killer, stop = Killer(guest, seed), threading.Event()

        def kill() -> None:
            while not stop.is_set() and killer.kills < kills and killer.kill():
                pass

        thread = threading.Thread(target=kill)
        signals = 0
        try:
            with EventLoad(guest, (EVENT,), cpus, pause=0) as load:
                thread.start()
                while thread.is_alive():
                    # Each signal is handled before the next one is sent, so that none can merge with another.
                    script = (
                        f"i={signals}; while [ $i -lt {signals + 10} ]; do i=$((i+1)); "
                        "echo signal 1 >/proc/sdei_test/control; "
                        'until grep -q "^cpu 1 event 0x0 count $i returned $i" /proc/sdei_test/status; do :; done; done'
                    )
                    assert guest.run(script, timeout=90).status == 0
                    signals += 10
        finally:
            stop.set()
            thread.join()
        assert not load.refused
        assert killer.kills == kills

        def idle() -> bool:
            (event,) = (event for event in guest.status()["events"] if event["event"] == EVENT)
            return not any(instance["pending"] or instance["running"] for instance in event["instances"])

        until("all that is pending is delivered", idle)
        assert client.count(1) == (signals, signals)
        for cpu in range(cpus):
            began, returned = client.count(cpu, EVENT)
            assert began == returned
            queued, unknown = load.queued[EVENT, cpu], load.unknown[EVENT, cpu]
            assert queued <= began <= queued + unknown
            assert began > 0
        assert not re.search(r"BUG|Oops|WARNING|Call trace", client.shell("dmesg"))
        assert guest.poweroff().guest


@pytest.mark.timeout(300)
def test_injections_and_signals_during_kills_are_delivered_exactly_once() -> None:
    kill_under_linux(6, 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_injections_and_signals_during_a_thousand_kills_are_delivered_exactly_once() -> None:
    kill_under_linux(1000, 2)
