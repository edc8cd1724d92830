"""A running guest goes on in another QEMU with another backend, on one host, and does not notice.

The judge is the guest: `mode=storm` of the bench guest checks each result against its own model (guest/bench/storm.c).
"""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.backend.control.kvm_regs import REGISTERS
from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import check_nothing_left, command, explained, processes, storm_ended, until
from tests.guest.load import EventLoad

pytestmark = pytest.mark.guest


def idle(**more: object) -> GuestOptions:
    """A guest that handles event 0 on both CPUs and does nothing else."""
    return GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M", **more)  # type: ignore[arg-type]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("route", ["shared", pytest.param("copy", marks=pytest.mark.slow)])  # as to another host
def test_in_a_storm_of_calls(route: str, runtime: Path) -> None:
    """There and back, and on: each call is answered once, each signal handled once, RAM is whole."""
    options = GuestOptions(
        kernel="builtin:bench", append="mode=storm count=40000 smp=2 seed=7", memory="128M", name="a"
    )
    with Guest(options) as guest:
        pids = {guest.qemu_pid, guest.backend_pid}
        calls = 0
        for name in ("b", "a", "c"):
            result = guest.migrate(name, route=route)
            assert (result.destination, guest.name) == (name, name)
            assert result.pages_differing == (0 if route == "copy" else None)
            assert {guest.qemu_pid, guest.backend_pid}.isdisjoint(pids)
            pids |= {guest.qemu_pid, guest.backend_pid}
            now = guest.status()["counts"]["calls"]
            assert now > calls, "calls are counted on"
            calls = now
            assert [path.name for path in (runtime / "qemu-sdei").iterdir() if path.is_dir()] == [name]
        assert guest.power_off is None, "the storm is to be longer than the migrations"
        off = storm_ended(guest)
        assert off.guest
        assert re.search(r"^storm: ok calls=\d+ handled=[1-9]\d*$", guest.console, re.MULTILINE), guest.console
    check_nothing_left(runtime)


@pytest.mark.timeout(180)
def test_no_event_is_lost_or_doubled_in_ten_migrations() -> None:
    """Under 500 events a second from the host: what was accepted was delivered, no more and no less."""
    under_events(10, "shared")


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("count", "route"), [(1000, "shared"), (100, "copy")])
def test_no_event_is_lost_or_doubled_in_many_migrations(count: int, route: str) -> None:
    """And where RAM is copied, it arrives whole each time."""
    under_events(count, route)


def under_events(count: int, route: str) -> None:
    with Guest(idle()) as guest:
        guest.expect("idle: ready")
        with EventLoad(guest, (0,), 2, pause=0.002) as load:
            for _ in range(count):
                assert not guest.migrate(route=route).pages_differing
        until("all are delivered", lambda: guest.status()["counts"]["completed"] == load.delivered)
        counts = guest.status()["counts"]
        assert counts["delivered"] == load.delivered > 200
        assert not load.refused
        assert not any(load.unknown.values())
        assert counts["rejected"] == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("victim", ["qemu", "backend", "directory"])
def test_destination_dies(victim: str, runtime: Path) -> None:
    """The guest goes on at the source, events intact, and can be migrated the next time. (A destination that has ended
    takes its run directory with it, early or late.)
    """
    with Guest(idle(name="a")) as guest:
        guest.expect("idle: ready")
        source = guest.qemu_pid, guest.backend_pid

        def kill(step: object) -> None:
            if getattr(step, "phase", "") != "ram":
                return
            if victim == "directory":
                shutil.rmtree(runtime / "qemu-sdei" / "b", ignore_errors=True)
                return
            for pid in set(processes(runtime / "qemu-sdei" / "b")) - set(source):
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if (b"qemu-system" in words) is (victim == "qemu"):
                    os.kill(pid, signal.SIGKILL)

        with EventLoad(guest, (0,), 2) as load, pytest.raises(GuestError, match="runs on as 'a'"):
            guest.migrate("b", report=kill)
        assert (guest.qemu_pid, guest.backend_pid) == source
        until("all are delivered", lambda: guest.status()["counts"]["completed"] == load.delivered)
        assert guest.status()["counts"]["rejected"] == 0
        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"
        assert not (runtime / "qemu-sdei" / "b").exists()
        assert guest.migrate("b").destination == "b"
        assert guest.inject(0, 0, wait=True, timeout=20).outcome == "completed"
    check_nothing_left(runtime)


@pytest.mark.timeout(100)
def test_who_waits_goes_along(runtime: Path) -> None:
    """An injection that is waited for is handled once, where the guest is by then; who asked, and who looks on, hears
    of it.
    """
    masked = next(register.id for register in REGISTERS if register.name == "SDEI_PE_STATE")
    outcomes: list[Any] = []
    seen: list[str] = []

    def wait(guest: Guest) -> None:
        with guest.client() as client:
            outcomes.append(client.inject(0, 1, wait=True, timeout=60))

    def watch(guest: Guest) -> None:
        with guest.client() as client:
            for event in client.events(60):
                seen.append(event["type"])
                if event["type"] == "complete":
                    return

    with Guest(idle(name="a")) as guest, guest.client() as client:
        guest.expect("idle: ready")
        client.registers(1, {masked: [1]})
        threads = [threading.Thread(target=work, args=(guest,)) for work in (watch, wait, wait)]
        for thread in threads:
            thread.start()
        until("both are there", lambda: guest.status()["counts"]["merged"] == 1)
        for name, route in (("b", "shared"), ("a", "live"), ("b", "copy")):
            guest.migrate(name, route=route)
        assert guest.status()["counts"]["completed"] == 0
        assert not outcomes
        client.registers(1, {masked: [0]})
        for thread in threads:
            thread.join(30)
        assert [outcome.outcome for outcome in outcomes] == ["completed"] * 2
        assert all(0 < outcome.entry_ns < outcome.complete_ns for outcome in outcomes)
        assert guest.status()["counts"]["completed"] == 1, "the second was merged into the first"
        assert "complete" in seen
        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_wrong_name_changes_nothing() -> None:
    with Guest(idle(name="a")) as guest:
        guest.expect("idle: ready")
        for name in ("a", "no/name"):
            with pytest.raises(UsageError):
                guest.migrate(name)
        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"


@pytest.mark.timeout(120)
def test_reset_and_end_at_the_destination(runtime: Path) -> None:
    """What a reset loads is there, and the guest's end is seen."""
    with Guest(idle(name="a")) as guest:
        guest.expect("idle: ready")
        guest.migrate("b")
        guest.reset()
        guest.expect("idle: ready")
        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"
        assert guest.status()["epoch"] == 2
        assert [reset["reason"] for reset in guest.resets] == ["host-qmp-system-reset"]
        pid = guest.qemu_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(GuestError, match="SIGKILL"):
            guest.expect("never said", timeout=30)
        assert time.monotonic() - started < 25
    check_nothing_left(runtime)


@pytest.mark.smoke
@pytest.mark.timeout(120)
def test_command(runtime: Path) -> None:
    """`qemu-sdei migrate`: the terminal that runs the guest keeps it, and the guest's end is still its end."""
    with (runtime / "out").open("wb") as out:
        owner = command(runtime, "run", "--name", "a", "--kernel", "builtin:bench", "--append", "mode=idle", stdout=out)
        until("the guest is up", lambda: b"idle: ready" in (runtime / "out").read_bytes())
        result = said(command(runtime, "migrate", "a", "b", "--json"))
        assert (result["source"], result["destination"]) == ("a", "b")
        (listed,) = said(command(runtime, "list", "--json"))["guests"]
        assert (listed["name"], listed["pid"]) == ("b", owner.pid)
        assert said(command(runtime, "inject", "b", "--event", "0", "--vcpu", "1", "--wait", "--json"))
        late = command(runtime, "migrate", "b", "--hold", "running", "--timeout", "0.5")
        assert b"was not reached within 0.5 s" in late.communicate(timeout=60)[1]
        assert late.returncode == 1
        assert said(command(runtime, "inject", "b", "--event", "0", "--vcpu", "0", "--wait", "--json"))
        # Ctrl-C in the middle: the guest goes on where it is.
        cancelled = command(runtime, "migrate", "b", "c", "--hold", "running")
        until("it asks for the hold point", lambda: b"waiting" in os.read(cancelled.stderr.fileno(), 1000))  # type: ignore[union-attr]
        cancelled.send_signal(signal.SIGINT)
        cancelled.communicate(timeout=60)
        assert cancelled.returncode == 130
        assert said(command(runtime, "inject", "b", "--event", "0", "--vcpu", "0", "--wait", "--json"))
        assert said(command(runtime, "migrate", "b", "d", "--json", "--route", "copy"))["pages_differing"] == 0
        regs = ("regs", "d", "--vcpu", "1", "--json")
        assert said(command(runtime, *regs))["SDEI_EVENT_ENABLED"]["words"] == [1]
        masked = said(command(runtime, *regs, "--set", "PE_STATE=1", "--set", "0x603000000014000b=1"))
        assert masked["SDEI_EVENT_PENDING"]["words"] == [1], "it waits: the vCPU is masked"
        said(command(runtime, *regs, "--set", "PE_STATE=0"))
        until("it is delivered", lambda: said(command(runtime, *regs))["SDEI_EVENT_PENDING"]["words"] == [0])
        owner.terminate()
        owner.communicate(timeout=60)
    (runtime / "out").unlink()
    check_nothing_left(runtime)


def said(process: subprocess.Popen[bytes]) -> Any:
    """What a command that works printed as JSON."""
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


@pytest.mark.timeout(200)
def test_linux_goes_there_and_back(linux: Path) -> None:
    """Registered events, both CPUs, hotplug and the next boot survive; the kernel has nothing to complain about."""
    options = GuestOptions(series="6.1", smp=2, files={KO: module_for("6.1")}, name="a")
    with Guest(options) as guest, explained(guest):
        client = Client(guest)
        client.load("events=0,0x100 verbose=0")
        for name in ("b", "a"):
            guest.migrate(name)
            for cpu in (0, 1):
                assert guest.inject(0x100, cpu, wait=True, timeout=20).outcome == "completed"
        assert [client.count(cpu, 0x100) for cpu in (0, 1)] == [(2, 2), (2, 2)]
        online = "/sys/devices/system/cpu/cpu1/online"
        client.shell(f"echo 0 >{online}")
        guest.migrate("b")
        client.shell(f"echo 1 >{online}")
        assert guest.inject(0x100, 1, wait=True, timeout=20).outcome == "completed"
        log = client.shell("dmesg")
        assert not re.search(r"BUG|Oops|WARNING|Call trace|stall", log), log
        assert guest.poweroff().guest


def test_a_source_is_forgotten(runtime: Path) -> None:
    """A guest that migrates all day must not keep what it has left behind."""
    options = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M")
    with Guest(options) as guest:
        guest.expect("idle: ready")
        left = weakref.ref(guest.placement.supervisor)
        guest.migrate()
        gc.collect()
        assert left() is None
