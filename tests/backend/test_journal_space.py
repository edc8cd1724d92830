"""A full journal while a service is amid its micro-operations: nobody is given up for what others do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from qemu_sdei.backend.loop import journal_space
from qemu_sdei.backend.loop.journal import FULL, RECORDS
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.monitor.layout import AnswerFlag, Kind
from qemu_sdei.monitor.ops import read_phys
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from qemu_sdei.smccc.ids import Owner
from qemu_sdei.smccc.service import Call, FunctionRange, JournalMode, Service, Steps
from tests.backend.simulated import SimulatedGuest, records, serve

STEPS = 0xC300_0010
NOT_SUPPORTED = 0xFFFF_FFFF_FFFF_FFFF


class Stepping(Service):
    """As many exchanges of micro-operations as the caller asks for."""

    name = "stepping"
    ranges = (FunctionRange(Owner.OEM, 0x10, 0x10),)
    journal = JournalMode.INPUT

    def call(self, call: Call) -> Steps:
        for _ in range(call.args[0]):
            yield read_phys(0x900_0000, 4)
        return 0x600D


def booted(directory: Path) -> tuple[SimulatedGuest, Server]:
    """Two CPUs that run."""
    guest = SimulatedGuest(2, directory)
    server = guest.server((Stepping(),))
    for pe in (0, 1):
        guest.reset(pe)
        serve(server)
        guest.take(pe)
    guest.smc(0, Psci.CPU_ON, 1, 0x4100_0000, 5)
    serve(server)
    guest.take(0)
    guest.take_kicks()
    guest.post(1, Kind.KICK)
    serve(server)
    guest.take(1)
    return guest, server


def mask(guest: SimulatedGuest, server: Server, pe: int) -> None:
    """A call that is kept in the journal."""
    guest.smc(pe, Function.PE_MASK)
    server.frame(pe, guest.window.seq[pe])
    assert guest.take(pe)[3] in (0, 1)


def test_others_wait_for_a_service_whose_cpu_comes_late(tmp_path: Path) -> None:
    """CPU 0 has done its micro-operations, and CPU 1's calls are seen before that, again and again."""
    guest, server = booted(tmp_path)
    guest.smc(0, STEPS, 1)
    server.frame(0, guest.window.seq[0])
    assert guest.take(0)[0] & AnswerFlag.REPOST
    guest.post(0, Kind.OPS)
    for _ in range(2 * RECORDS):
        mask(guest, server, 1)
    assert guest.take(0)[3] == 0x600D


def test_a_cpu_that_does_not_come_is_not_waited_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may never come; in the end its call is given up, and why is told."""
    monkeypatch.setattr(journal_space, "_LIMIT", 0.01)
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    guest, server = booted(tmp_path)
    guest.smc(0, STEPS, 1)
    server.frame(0, guest.window.seq[0])
    for _ in range(FULL):
        mask(guest, server, 1)
    waited = len(pauses)
    assert waited
    for _ in range(FULL - 20):
        mask(guest, server, 1)
    assert len(pauses) == waited
    assert server.firmware.exchange.busy
    for _ in range(FULL):
        mask(guest, server, 1)
    assert not server.firmware.exchange.busy
    assert any("service cancelled" in record.get("why", "") for record in records(server))
    guest.post(0, Kind.OPS)
    serve(server)
    assert guest.take(0)[3] == NOT_SUPPORTED


@pytest.mark.parametrize(("steps", "answer"), [(150, 0x600D), (RECORDS, NOT_SUPPORTED)])
def test_how_many_exchanges_a_call_has(steps: int, answer: int, tmp_path: Path) -> None:
    """Whatever is in the journal when it begins."""
    guest, server = booted(tmp_path)
    while server.journal.count < FULL - 1:
        mask(guest, server, 1)
    guest.smc(0, STEPS, steps)
    serve(server)
    done = 0
    while guest.take(0)[0] & AnswerFlag.REPOST:
        guest.post(0, Kind.OPS)
        serve(server)
        done += 1
    assert guest.take(0)[3] == answer
    assert done <= steps


def test_a_cpu_whose_monitor_is_broken_holds_up_nobody(tmp_path: Path) -> None:
    guest, server = booted(tmp_path)
    guest.smc(0, STEPS, 1)
    serve(server)
    assert server.firmware.exchange.busy
    guest.post(0, Kind.FAULT)
    serve(server)
    assert not server.firmware.exchange.busy
