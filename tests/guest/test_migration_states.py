"""Migrated, or saved and restored, exactly when an event, or a vCPU, is in a given state: what the guest prints is what
one prints that stayed.

`mode=journey` of the bench guest (guest/bench/journey.c) walks through the states, and its lines do not depend on time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.backend.control.kvm_regs import REGISTERS
from qemu_sdei.errors import LostGuestError
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest import Guest
from qemu_sdei.migration.options import Hold, MigrationResult, Step
from qemu_sdei.monitor.layout import Word
from qemu_sdei.vm.options import GuestOptions
from tests.backend.schema import refusal
from tests.guest.guests import check_nothing_left, runtime_directory

pytestmark = pytest.mark.guest

CRITICAL = 0x103
LIMIT = 40.0


OPTIONS = GuestOptions(kernel="builtin:bench", append="mode=journey smp=2 wait=1", memory="128M", name="a")


class Journey:
    """One journey; with `hold` it is migrated on the way, and what the state document says there is kept."""

    def __init__(self, hold: Hold | None = None, route: str = "shared") -> None:
        self.document: dict[str, Any] = {}
        self.result: MigrationResult | None = None
        with Guest(OPTIONS) as guest:
            guest.expect("waits for a key")
            mover = threading.Thread(target=self._migrate, args=(guest, hold, route))
            if hold is None:
                guest.write("k")
            else:
                mover.start()
            guest.expect(rf"waits for event {CRITICAL:#x}\r?\n", timeout=LIMIT)
            guest.inject(CRITICAL, 0)
            guest.expect("journey: ok", timeout=LIMIT)
            if hold is not None:
                mover.join(LIMIT)
                assert self.result is not None
            assert guest.wait_off(LIMIT).guest
            self.record = guest.console

    def _migrate(self, guest: Guest, hold: Hold | None, route: str) -> None:
        def report(step: Step) -> None:
            if step.phase == "hold":
                press_key(guest)
            state = rundir.base_path() / "a" / rundir.STATE
            if step.phase == "ram" and not self.document and state.exists():
                self.document = json.loads(state.read_bytes())

        self.result = guest.migrate("b", hold=hold, route=route, report=report)


class Interrupted:
    """One journey that is saved at a hold point and ends; it goes on from there twice, each time to its end."""

    def __init__(self, hold: Hold, directory: Path) -> None:
        self._sent = False
        with Guest(OPTIONS) as guest:
            guest.expect("waits for a key")
            helper = threading.Thread(target=self._help, args=(guest,))
            helper.start()
            guest.save(
                directory, end=True, hold=hold, report=lambda step: press_key(guest) if step.phase == "hold" else None
            )
            guest.wait_off(LIMIT)
            helper.join(LIMIT)
        self.document: dict[str, Any] = json.loads((directory / rundir.STATE).read_bytes())
        self.records = [self._go_on(directory) for _ in range(2)]

    def _help(self, guest: Guest) -> None:
        """Do what it waits for, unless it is saved before that; what arrives then is not carried out."""
        with contextlib.suppress(LostGuestError):
            guest.expect(rf"waits for event {CRITICAL:#x}\r?\n", timeout=LIMIT)
            guest.inject(CRITICAL, 0)
            self._sent = True

    def _go_on(self, directory: Path) -> str:
        with Guest.saved(directory) as guest:
            if not self._sent:
                guest.expect(rf"waits for event {CRITICAL:#x}\r?\n", timeout=LIMIT)
                guest.inject(CRITICAL, 0)
            assert guest.wait_off(LIMIT).guest
            return guest.console


def press_key(guest: Guest) -> None:
    """The hold point is armed: only now may the guest go on. (Not in the guest's own thread, which reports.)"""
    threading.Thread(target=guest.write, args=("k",)).start()


@pytest.fixture(scope="module")
def stayed() -> str:
    """The record of a journey without a migration."""
    with pytest.MonkeyPatch.context() as patch, runtime_directory() as path:
        patch.setenv("XDG_RUNTIME_DIR", str(path))
        return Journey().record


def pe(document: dict[str, Any]) -> dict[str, Any]:
    """CPU 0 as SDEI has it."""
    found: dict[str, Any] = document["firmware"]["sdei"]["pes"][0]
    return found


def is_in(document: dict[str, Any], state: int, *, pending: bool) -> bool:
    """Whether event 0 of CPU 0 is in this state of sdei-states.md: 1 registered, 2 enabled, 4 running."""
    return [(e["state"], e["pending"]) for e in pe(document)["events"] if e["event"] == 0] == [(state, pending)]


def running(document: dict[str, Any]) -> list[int]:
    """Events whose handlers run on CPU 0."""
    return [frame["event"] for frame in pe(document)["frames"]]


def waits(document: dict[str, Any]) -> bool:
    """CPU 0 is in an exchange whose call was not answered."""
    return bool(document["cpus"][0]["seq"] == document["cpus"][0]["answered"] + 1)


def answered_not_taken(document: dict[str, Any]) -> bool:
    """CPU 0 is in an exchange whose answer lies there."""
    cpu = document["cpus"][0]
    return bool(cpu["seq"] == cpu["answered"] == cpu["frame"][Word.DONE] + 1)


STATES: dict[str, tuple[Hold, Callable[[dict[str, Any]], bool]]] = {
    "registered": (Hold("registered"), lambda d: is_in(d, 0b001, pending=False)),
    "enabled": (Hold("enabled"), lambda d: is_in(d, 0b011, pending=False)),
    "pending-masked": (Hold("pending-masked"), lambda d: is_in(d, 0b011, pending=True) and pe(d)["masked"]),
    "pending-disabled": (Hold("pending-disabled"), lambda d: is_in(d, 0b001, pending=True)),
    "running": (Hold("running"), lambda d: is_in(d, 0b111, pending=False) and running(d) == [0]),
    "running-pending": (Hold("running-pending"), lambda d: is_in(d, 0b111, pending=True) and running(d) == [0]),
    "unregister-pending": (Hold("unregister-pending"), lambda d: is_in(d, 0b100, pending=False) and running(d) == [0]),
    "nested": (Hold("nested", CRITICAL), lambda d: running(d) == [0, CRITICAL]),
    "resume": (Hold("resume"), lambda d: not running(d) and answered_not_taken(d)),
    "off": (Hold("off", vcpu=1), lambda d: d["firmware"]["psci"]["power"] == [0, 1]),
    "exchange": (Hold("exchange"), waits),
}


def check(state: str, route: str, stayed: str) -> None:
    hold, is_so = STATES[state]
    journey = Journey(hold, route)
    assert refusal(journey.document) is None
    assert is_so(journey.document), f"not migrated in the state: {journey.document}"
    assert journey.record == stayed
    assert journey.result is not None
    assert not journey.result.pages_differing


@pytest.mark.timeout(100)
@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    ("state", "route"),
    [("running-pending", "copy"), ("nested", "shared"), ("resume", "copy"), ("exchange", "shared")],
)
def test_migrated_in_a_state(state: str, route: str, stayed: str) -> None:
    check(state, route, stayed)


@pytest.mark.slow
@pytest.mark.timeout(100)
@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("route", ["shared", "copy", "live", "postcopy"])
@pytest.mark.parametrize("state", STATES)
def test_migrated_in_every_state(state: str, route: str, stayed: str) -> None:
    check(state, route, stayed)


def check_file(state: str, directory: Path, stayed: str) -> None:
    hold, is_so = STATES[state]
    journey = Interrupted(hold, directory / "saved")
    assert refusal(journey.document) is None
    assert is_so(journey.document), f"not saved in the state: {journey.document}"
    assert journey.records == [stayed, stayed]


@pytest.mark.timeout(100)
@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("state", ["nested", "exchange"])
def test_saved_in_a_state(state: str, tmp_path: Path, stayed: str) -> None:
    check_file(state, tmp_path, stayed)


@pytest.mark.slow
@pytest.mark.timeout(100)
@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("state", STATES)
def test_saved_in_every_state(state: str, tmp_path: Path, stayed: str) -> None:
    check_file(state, tmp_path, stayed)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("state", ["pending-masked", "pending-disabled", "running", "running-pending"])
def test_the_host_brings_it_about(state: str, runtime: Path) -> None:
    """Also where an injection, or a register that was written, leads to the state, and the guest makes no call."""
    registers = {register.name: register.id for register in REGISTERS}
    before = {
        "pending-masked": {"SDEI_PE_STATE": [1]},
        "pending-disabled": {"SDEI_EVENT_ENABLED": [0]},
        "running": {},
        "running-pending": {"SDEI_EVENT_RUNNING": [1], "SDEI_EVENT_CONTEXT": [0, 0x3C5, *[0] * 30]},
    }[state]
    documents: list[dict[str, Any]] = []

    def report(step: Step) -> None:
        path = runtime / "qemu-sdei" / "a" / rundir.STATE
        if step.phase == "hold":
            threading.Thread(target=guest.inject, args=(0, 0)).start()
        elif step.phase == "ram" and not documents and path.exists():
            documents.append(json.loads(path.read_bytes()))

    with Guest(dataclasses.replace(OPTIONS, append="mode=idle smp=2")) as guest:
        guest.expect("idle: ready")
        with ControlClient(rundir.find("a").control) as client:
            client.registers(0, {registers[name]: words for name, words in before.items()})
        guest.migrate("b", hold=Hold(state, timeout=10.0), report=report)
        _, is_so = STATES[state]
        assert is_so(documents[0])
    check_nothing_left(runtime)
