"""What `save` writes of real guests of every kind fits the JSON Schema of the state document."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.backend.control.kvm_regs import REGISTERS
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.backend.schema import refusal
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import until
from tests.guest.load import EventLoad

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(240)]


def bench(mode: str, **more: Any) -> GuestOptions:
    return GuestOptions(kernel="builtin:bench", append=f"mode={mode}", memory="128M", **more)


def saved(guest: Guest, path: Path) -> dict[str, Any]:
    """The state document of the guest as it is now; it goes on."""
    guest.save(path)
    state: dict[str, Any] = json.loads((path / "state.json").read_text())
    assert refusal(state) is None
    return state


@pytest.mark.parametrize("virtualization", [False, True])
def test_bound_interrupts(virtualization: bool, tmp_path: Path) -> None:
    options = bench("bound smp=4 count=1000000", smp=4, virtualization=virtualization)
    with Guest(options) as guest:
        until("interrupts come", lambda: guest.status()["counts"]["delivered"] > 100)
        for number in range(5):
            state = saved(guest, tmp_path / str(number))
            assert state["machine"]["virtualization"] is virtualization
            assert state["firmware"]["sdei"]["bound"]
            assert state["firmware"]["gic"]["owned"]


def test_without_sdei(tmp_path: Path) -> None:
    with Guest(bench("call function=0x84000000 stay=1", smp=3, sdei=False)) as guest:
        guest.expect("x0=0x10001")
        state = saved(guest, tmp_path / "saved")
        assert state["firmware"]["serves_sdei"] is False
        assert state["firmware"]["psci"]["power"] == [0, 1, 1]


@pytest.mark.parametrize("boot", ["dt", "acpi"])
def test_linux_with_events(boot: Any, tmp_path: Path) -> None:
    """Handlers run, clients wait for them, and a CPU is off."""
    options = GuestOptions(series="6.1", smp=3, boot=boot, files={KO: module_for("6.1")})
    with Guest(options) as guest:
        client = Client(guest)
        client.shell("dmesg -n 1; echo 0 >/sys/devices/system/cpu/cpu2/online")
        client.load("events=0,0x100 verbose=0")
        states = []
        with EventLoad(guest, (0, 0x100), 2):
            for number in range(4):
                states.append(saved(guest, tmp_path / str(number)))
        assert all(state["firmware"]["psci"]["power"] == [0, 0, 1] for state in states)
        assert all(len(pe["events"]) == 2 for state in states for pe in state["firmware"]["sdei"]["pes"][:2])


def test_who_waits(tmp_path: Path) -> None:
    """Injections that wait for a masked vCPU: they have tickets."""
    masked = next(register.id for register in REGISTERS if register.name == "SDEI_PE_STATE")
    outcomes: list[str] = []

    def wait(guest: Guest) -> None:
        with guest.client() as own:
            outcomes.append(own.inject(0, 1, wait=True, timeout=60).outcome)

    with Guest(bench("idle smp=2")) as guest, guest.client() as client:
        guest.expect("idle: ready")
        client.registers(1, {masked: [1]})
        threads = [threading.Thread(target=wait, args=(guest,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        until("both are there", lambda: guest.status()["counts"]["merged"] == 1)
        state = saved(guest, tmp_path / "saved")
        assert [waiter["entry_ns"] for waiter in state["waiting"]] == [None, None]
        client.registers(1, {masked: [0]})
        for thread in threads:
            thread.join(60)
        assert outcomes == ["completed", "completed"]
