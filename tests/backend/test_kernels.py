"""Kernels that come without a reset are counted by a call that Linux makes once as it boots."""

from __future__ import annotations

from pathlib import Path

from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.monitor.layout import AnswerFlag, Kind, SysReg, Word
from qemu_sdei.services.psci import Function as Psci
from tests.backend.simulated import SimulatedBoot, SimulatedGuest, records, serve


def kernel_begins(guest: SimulatedGuest, server: Server, active: int = 0) -> list[tuple[int, int]]:
    """A kernel's call, on a CPU with these active priorities; (register, value) of what else was done."""
    done: list[tuple[int, int]] = []
    guest.smc(0, Psci.MIGRATE_INFO_TYPE)
    serve(server)
    answer = guest.take(0)
    while answer[0] & AnswerFlag.REPOST:
        ops = guest.window.frames[0]
        done.append((ops[Word.OPS + 1], ops[Word.OPS + 2]))
        ops[Word.OPS + 2] = active
        guest.post(0, Kind.OPS)
        serve(server)
        answer = guest.take(0)
    assert answer[3] == 2
    return done


def test_kernels_are_counted_from_each_reset(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    seen: list[tuple[int, int]] = []
    for kernels in (1, 2, 0):
        guest.reset(0)
        serve(server)
        guest.take(0)
        for _ in range(kernels):
            kernel_begins(guest, server)
        seen.append((server.status()["epoch"], server.status()["kernels"]))
    assert seen == [(1, 1), (2, 2), (3, 0)]
    assert [record["kernels"] for record in records(server) if record["type"] == "kernel"] == [1, 1, 2]


def test_a_new_backend_knows_them(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    for _ in range(3):
        kernel_begins(guest, server)
    server = guest.server()
    assert server.recover()
    assert server.status()["kernels"] == 3


def test_a_kernel_that_another_one_starts_finds_no_active_priority(tmp_path: Path) -> None:
    """A panic in an SDEI handler that interrupted an interrupt's: the capture kernel's first CPU was deaf."""
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    assert kernel_begins(guest, server, 1 << 20) == []  # what a reset starts has none
    looked, ended = kernel_begins(guest, server, 1 << 20)
    assert (looked[0], ended[0]) == (SysReg.ICC_AP1R0_EL1, SysReg.ICC_EOIR1_EL1)
    assert [register for register, _ in kernel_begins(guest, server)] == [SysReg.ICC_AP1R0_EL1]
    told = [record for record in records(server) if record["type"] == "priorities"]
    assert (told[0]["at"], told[0]["ap1r0"], told[0]["then"]) == ("kernel", 1 << 20, "ended")


def test_a_state_of_before_has_none() -> None:
    firmware = Firmware(1, boot=SimulatedBoot())
    state = firmware.snapshot()
    del state["kernels"]
    firmware.machine.kernels = 5
    firmware.restore(state)
    assert firmware.machine.kernels == 0
