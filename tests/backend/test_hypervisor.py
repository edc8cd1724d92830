"""A guest above our EL2: it gets the answers that any guest gets, whichever line its backend is killed at."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.backend.firmware.core import RefusedSmc
from qemu_sdei.hypervisor.el2 import El2
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Op, SysReg, Word
from qemu_sdei.sdei.constants import Function
from qemu_sdei.smccc import Call, FunctionRange, Owner, Service
from tests.backend.simulated import EL1H, ENTRY, RAM_BASE, SYSREGS, SimulatedGuest, records, serve
from tests.backend.simulated_hypervisor import HypervisorGuest
from tests.backend.test_crash import World, _Kill, scenario

NOT_SUPPORTED = 0xFFFF_FFFF_FFFF_FFFF
VERSION = 0x0001_0001_004B_564D


def world(directory: Path, at: int = -1) -> World:
    return World(directory, _Kill(at), HypervisorGuest)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], int]:
    found = world(tmp_path_factory.mktemp("undisturbed"))
    scenario(found)
    return found.seen, found.kill.lines


def test_the_answers_are_those_of_a_guest_without_el2(undisturbed: tuple[list[Any], int], tmp_path: Path) -> None:
    ordinary = World(tmp_path, _Kill(-1))
    scenario(ordinary)
    count = 0xFF00  # of micro-operations: those at reset come on top

    def without_counts(seen: list[Any]) -> list[Any]:
        return [(pe, [answer[0] & ~count, *answer[1:]]) for pe, answer in seen]

    assert without_counts(undisturbed[0]) == without_counts(ordinary.seen)


@pytest.mark.parametrize("part", range(4))
def test_killed_at_a_random_line(
    part: int, undisturbed: tuple[list[Any], int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    seen, lines = undisturbed
    chance = random.Random(part)
    for _ in range(6):
        at = chance.randrange(lines)
        killed = world(tmp_path_factory.mktemp("killed"), at)
        scenario(killed)
        assert killed.seen == seen, f"killed at line {at}"


def written(frame: memoryview) -> dict[int, int]:
    """System registers that an answer's micro-operations write."""
    found = {}
    for n in range(frame[Word.FLAGS] >> 8 & 0xFF):
        code, register, value = frame[Word.OPS + 3 * n : Word.OPS + 3 * n + 3].tolist()
        if code & 0xFF == Op.WRITE_SYSREG:
            found[register] = value
    return found


def test_each_cpu_has_el2_set_up_before_it_leaves_el3(tmp_path: Path) -> None:
    guest = HypervisorGuest(2, tmp_path)
    server = guest.server()
    wanted = {op.argument: op.value for op in El2(RAM_BASE, guest.window.base).at_reset() if op.code == Op.WRITE_SYSREG}
    for pe in (1, 0):
        guest.reset(pe)
        serve(server)
        assert written(guest.window.frames[pe]).items() >= wanted.items()
        assert guest.window.frames[pe][Word.FLAGS] & AnswerFlag.PARK == (AnswerFlag.PARK if pe else 0)
    assert wanted[SysReg.HCR_EL2] >> 31 & 1, "EL1 is AArch64"


def booted(directory: Path, refused: RefusedSmc | None) -> tuple[HypervisorGuest, Any]:
    guest = HypervisorGuest(1, directory)
    guest.refused = refused
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    guest.window.frames[0][Word.PSTATE] = EL1H
    return guest, server


@pytest.mark.parametrize(("refused", "result"), [(None, VERSION), (RefusedSmc.UNSUPPORTED, NOT_SUPPORTED)])
def test_an_smc_is_served_or_not_supported(tmp_path: Path, refused: RefusedSmc | None, result: int) -> None:
    guest, server = booted(tmp_path, refused)
    guest.smc_itself(0, Function.VERSION)
    serve(server)
    flags, pc, _, x0, *_ = guest.take(0)
    assert (flags, pc, x0) == (0, ENTRY.pc + 4, result)
    guest.smc(0, Function.VERSION)  # by HVC
    serve(server)
    assert guest.take(0)[3] == VERSION


class Told(Service):
    """Says by which conduit it was called."""

    ranges = (FunctionRange(Owner.OEM, 0, 0),)

    def call(self, call: Call) -> int:
        return 1 if call.conduit == "hvc" else 2


def test_a_users_service_is_told_the_conduit(tmp_path: Path) -> None:
    guest = HypervisorGuest(1, tmp_path)
    server = guest.server((Told(),))
    guest.reset(0)
    serve(server)
    guest.take(0)
    guest.window.frames[0][Word.PSTATE] = EL1H
    guest.smc(0, 0xC300_0000)  # by HVC
    serve(server)
    assert guest.take(0)[3] == 1
    guest.smc_itself(0, 0xC300_0000)
    serve(server)
    assert guest.take(0)[3] == 2


def test_an_undefined_smc_enters_the_guests_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vbar = 0xFFFF_8000_0801_0000
    monkeypatch.setitem(SYSREGS, SysReg.VBAR_EL1, vbar)
    guest, server = booted(tmp_path, RefusedSmc.UNDEFINED)
    guest.smc_itself(0, Function.VERSION)
    serve(server)
    frame = guest.window.frames[0]
    guest.take(0)
    guest.window.execute(frame, 0)
    guest.post(0, Kind.OPS)
    serve(server)
    _, pc, pstate, *_ = guest.take(0)
    registers = written(frame)
    assert pc == vbar + 0x200
    assert pstate & 0x3CF == EL1H
    assert registers[SysReg.ELR_EL1] == ENTRY.pc, "the instruction itself"
    assert registers[SysReg.ESR_EL1] == 0x0200_0000


@pytest.mark.parametrize(("syndrome", "ec", "what"), [(0x92000050, 0x25, "write to"), (0x82000005, 0x21, "fetch from")])
def test_an_access_behind_stage_2_is_an_abort_of_the_guests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syndrome: int, ec: int, what: str
) -> None:
    vbar, window = 0xFFFF_8000_0801_0000, 0x7FE1_0000
    monkeypatch.setitem(SYSREGS, SysReg.VBAR_EL1, vbar)
    monkeypatch.setitem(SYSREGS, SysReg.FAR_EL2, 0xFFFF_0000_3FE1_0128)
    monkeypatch.setitem(SYSREGS, SysReg.HPFAR_EL2, window >> 12 << 4)
    guest, server = booted(tmp_path, None)
    frame = guest.window.frames[0]
    pc = frame[Word.PC]
    guest.enter_el2(0, syndrome, pc)
    SimulatedGuest.post(guest, 0, Kind.SMC)
    serve(server)
    guest.take(0)
    guest.window.execute(frame, 0)
    guest.post(0, Kind.OPS)
    serve(server)
    _, entered, pstate, *_ = guest.take(0)
    registers = written(frame)
    assert (entered, pstate & 0x3CF) == (vbar + 0x200, EL1H)
    assert registers[SysReg.ELR_EL1] == pc
    assert registers[SysReg.FAR_EL1] == 0xFFFF_0000_3FE1_0128
    assert registers[SysReg.ESR_EL1] >> 26 == ec
    assert registers[SysReg.ESR_EL1] & 0x3F == 0x10, "a synchronous external abort"
    assert registers[SysReg.ESR_EL1] >> 6 & 1 == (what == "write to")
    said = [record["why"] for record in records(server) if record["type"] == "reject"]
    assert any(why.startswith(f"{what} 0x7fe10128, which is not the guest's") for why in said), said
