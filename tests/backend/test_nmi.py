"""An NMI goes by what the guest has registered and enabled; where it has nothing, it is told what is lacking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.monitor.layout import Kind
from qemu_sdei.sdei.constants import Function
from qemu_sdei.sdei.machine_description import MachineDescription
from tests.backend.controlled import HANDLER, Peer
from tests.backend.test_notifier import SPI, Asked

AGDI, TIMER = 0x325, 27


@pytest.fixture
def with_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Asked]:
    """A guest whose machine description has AGDI by an interrupt too."""
    profile = replace(MachineDescription.default(), agdi_interrupt=SPI)
    monkeypatch.setattr(MachineDescription, "default", lambda: profile)
    return lambda: Asked(tmp_path)


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


def nmi(asked: Asked, **fields: Any) -> dict[str, Any]:
    return Peer(asked.backend).result(cmd="nmi", **fields)


def test_agdi_comes_first_then_event_0_then_a_watchdog(asked: Asked) -> None:
    backend = asked.backend
    bound = backend.call(0, Function.INTERRUPT_BIND, TIMER)[3]
    asked.guest.smc(0, Function.EVENT_REGISTER, bound, HANDLER, 0, 0, 0)
    asked.answered(0)
    backend.call(0, Function.EVENT_ENABLE, bound)
    backend.call(0, Function.PE_UNMASK)
    found = nmi(asked)
    assert (found["by"], found["event"], found["vcpu"], found["outcome"]) == ("watchdog", bound, 0, "queued")
    handled(asked, bound)
    backend.enable(0)
    assert nmi(asked) == {
        "by": "software", "event": 0, "intid": None, "vcpu": 0, "outcome": "queued", "reason": None,
    }  # fmt: skip
    assert nmi(asked, by="software", vcpu=0)["outcome"] == "merged"
    handled(asked, 0)
    backend.enable(AGDI)
    found = nmi(asked)
    assert (found["by"], found["event"], found["outcome"]) == ("agdi", AGDI, "queued")


def handled(asked: Asked, event: int) -> None:
    """Its handler runs, and completes it."""
    assert asked.guest.take_kicks() == [0]
    asked.guest.post(0, Kind.KICK)
    assert asked.answered(0)[3] == event
    asked.guest.smc(0, Function.EVENT_COMPLETE, 0)
    asked.answered(0)


def test_the_vcpu_that_is_meant_must_take_it(asked: Asked) -> None:
    asked.backend.enable(0)
    kind, why = Peer(asked.backend).error(cmd="nmi", vcpu=1)
    assert kind == "state"
    assert "software: event 0x0 is not registered on vCPU 1; CONFIG_ARM_SDEI_NMI" in why
    assert Peer(asked.backend).error(cmd="nmi", vcpu=2) == ("usage", "there is no vCPU 2: this guest has 0 to 1")
    assert Peer(asked.backend).error(cmd="nmi", by="smoke")[0] == "usage"


def test_a_guest_that_has_none_is_told_which_option_would_bring_one(asked: Asked) -> None:
    kind, why = Peer(asked.backend).error(cmd="nmi")
    assert kind == "state"
    assert why.split("\n") == [
        "nothing in the guest takes an NMI",
        "  agdi: event 0x325 is not registered; CONFIG_ACPI_AGDI brings a handler "
        "(Linux 5.18 or newer, booted by ACPI)",
        "  software: event 0x0 is not registered; CONFIG_ARM_SDEI_NMI brings a handler (Linux 7.3 or newer)",
        "  watchdog: no interrupt is bound to an event; a driver that binds its watchdog's interrupt brings one "
        "(CONFIG_SDEI_WATCHDOG of openEuler and others)",
    ]
    asked.backend.call(0, Function.EVENT_REGISTER, AGDI, 0x4300_0000, 0, 0, 0)
    assert "event 0x325 is registered but not enabled" in Peer(asked.backend).error(cmd="nmi", by="agdi")[1]


def test_what_is_masked_waits_and_says_so(asked: Asked) -> None:
    asked.backend.enable(0)
    asked.backend.call(0, Function.PE_MASK)
    assert nmi(asked)["reason"] == "event 0x0 (software) waits: PE 0 is masked"


def test_agdi_by_its_interrupt(with_interrupt: Callable[[], Asked]) -> None:
    asked = with_interrupt()
    asked.backend.enable(0)
    peer = Peer(asked.backend)
    peer.send(b'{"id": 5, "cmd": "nmi"}\n')
    asked.come(pstate=0x3C5)
    (answer,) = peer.lines()
    assert answer["result"] == {
        "by": "agdi-interrupt", "event": None, "intid": SPI, "vcpu": 0, "outcome": "queued", "reason": None,
    }  # fmt: skip
    assert asked.machine.pending == [SPI]


def test_an_interrupt_that_nobody_enabled_is_passed_over(with_interrupt: Callable[[], Asked]) -> None:
    asked = with_interrupt()
    asked.machine.enabled.clear()
    peer = Peer(asked.backend)
    peer.send(b'{"id": 5, "cmd": "nmi"}\n')
    asked.come(pstate=0x3C5)
    (answer,) = peer.lines()
    assert "agdi-interrupt: the guest has not enabled interrupt 100" in answer["error"]["message"]
    asked.backend.enable(0)
    peer.send(b'{"id": 6, "cmd": "nmi"}\n')
    asked.come()
    assert peer.lines()[0]["result"]["by"] == "software"
    assert asked.machine.pending == []
