"""Errors whose event the guest takes back before its handler begins: each is told again, and once."""

from __future__ import annotations

from typing import Any

import pytest

from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.controlled import PRIVATE, SHARED, Backend, Peer
from tests.backend.simulated import serve
from tests.backend.test_error_sources import CPU, MEMORY, Ram, b64, error, place, states


@pytest.fixture
def ram(backend: Backend) -> Ram:
    ram = Ram(backend)
    place(backend.server.errors, ram)
    tick(backend)  # what lies there from before: nothing
    return ram


def reported(peer: Peer, source: str, **more: Any) -> dict[str, Any]:
    return peer.result(cmd="ras_report", source=source, block=b64(error()), **more)


def tick(backend: Backend) -> None:
    """What the loop does now and then, outside of calls."""
    backend.server.errors.untold.tick()


def pending(backend: Backend, event: int) -> list[bool]:
    (found,) = (each for each in backend.server.status()["events"] if each["event"] == event)
    return [bool(instance["pending"]) for instance in found["instances"]]


def both_listen(backend: Backend) -> None:
    """To the private event."""
    backend.start_cpu_1()
    backend.enable(PRIVATE, 0)
    backend.enable(PRIVATE, 1)


@pytest.mark.parametrize("off", [False, True], ids=["unregistered", "off"])
def test_another_vcpu_is_told_when_the_first_one_goes(backend: Backend, peer: Peer, ram: Ram, off: bool) -> None:
    both_listen(backend)
    assert reported(peer, "cpu", vcpu=1)["vcpu"] == 1
    assert backend.call(1, Function.PE_MASK)[3] == 1
    backend.guest.take_kicks()
    if off:
        backend.guest.smc(1, Psci.CPU_OFF)
        serve(backend.server)
    else:
        assert backend.call(1, Function.EVENT_UNREGISTER, PRIVATE)[3] == 0
    assert states(peer)["cpu"][0] == "unread"
    tick(backend)
    assert backend.kick() == [0]
    assert ram.take(CPU)[: len(error())] == error()
    backend.call(0, Function.EVENT_COMPLETE, 0)
    tick(backend)
    assert backend.guest.take_kicks() == []
    assert states(peer)["cpu"][0] == "free"


def test_who_listens_next_is_told_where_nobody_does(backend: Backend, peer: Peer, ram: Ram) -> None:
    backend.enable(SHARED)
    assert backend.call(0, Function.PE_MASK)[3] == 1
    assert peer.error(cmd="ras_report", source="memory", block=b64(error()))[0] == "state"
    assert reported(peer, "memory", force=True)["outcome"] == "queued"
    assert backend.call(0, Function.EVENT_UNREGISTER, SHARED)[3] == 0
    tick(backend)
    assert pending(backend, SHARED) == [False]
    assert states(peer)["memory"][0] == "unread", "it is kept"
    assert backend.call(0, Function.EVENT_REGISTER, SHARED, 0x4300_0000, 0, 0, 0)[3] == 0
    assert backend.call(0, Function.EVENT_ENABLE, SHARED)[3] == 0
    tick(backend)
    assert pending(backend, SHARED) == [True]
    tick(backend)
    assert backend.call(0, Function.PE_UNMASK)[3] == SHARED, "the handler is entered"
    assert ram.take(MEMORY)[: len(error())] == error()
    backend.call(0, Function.EVENT_COMPLETE, 0)
    tick(backend)
    assert pending(backend, SHARED) == [False]


def test_a_driver_that_reads_by_itself_as_it_starts_is_not_told(backend: Backend, peer: Peer, ram: Ram) -> None:
    backend.enable(SHARED)
    assert backend.call(0, Function.PE_MASK)[3] == 1
    reported(peer, "memory", force=True)
    assert backend.call(0, Function.EVENT_UNREGISTER, SHARED)[3] == 0
    ram.take(MEMORY)
    backend.enable(SHARED)
    tick(backend)
    assert pending(backend, SHARED) == [False]


def test_one_that_a_handler_does_not_read_is_not_told_for_ever(backend: Backend, peer: Peer, ram: Ram) -> None:
    both_listen(backend)
    reported(peer, "cpu", vcpu=1)
    assert 1 in backend.kick()
    backend.call(1, Function.EVENT_COMPLETE, 0)
    assert states(peer)["cpu"][0] == "unread"
    backend.guest.take_kicks()
    assert backend.call(1, Function.EVENT_UNREGISTER, PRIVATE)[3] == 0
    backend.enable(PRIVATE, 1)
    tick(backend)
    assert pending(backend, PRIVATE) == [False, False]


def test_a_backend_that_takes_over_tells_of_what_lies_there(backend: Backend, peer: Peer, ram: Ram) -> None:
    both_listen(backend)
    assert backend.call(1, Function.PE_MASK)[3] == 1
    reported(peer, "cpu", vcpu=1, force=True)
    assert backend.call(1, Function.EVENT_UNREGISTER, PRIVATE)[3] == 0
    backend.guest.take_kicks()
    backend.server.errors.take_up()
    assert backend.kick() == [0]
    assert ram.take(CPU)[: len(error())] == error()
