"""What frames are answered with: boot, calls, power, and frames that no monitor wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.backend.firmware.core import affinity
from qemu_sdei.monitor.layout import MAX_CPUS, AnswerFlag, Kind, Op, SysReg, Word
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.simulated import EL1H, ENTRY, SimulatedGuest, records, serve
from tests.examples import examples

M64 = 0xFFFF_FFFF_FFFF_FFFF
NOT_SUPPORTED = M64
PC, PSTATE, X0 = 1, 2, 3
"""Places in what `take` returns."""


@pytest.fixture
def guest(tmp_path: Path) -> SimulatedGuest:
    return SimulatedGuest(2, tmp_path)


def test_cpu_0_boots_at_the_entry_point_and_the_others_wait(guest: SimulatedGuest) -> None:
    server = guest.server()
    guest.reset(1)
    guest.reset(0)
    serve(server)
    answer = guest.take(0)
    assert answer[PC : X0 + 2] == [ENTRY.pc, EL1H, ENTRY.x0, 0]
    assert answer[0] & AnswerFlag.ALL
    frame = guest.window.frames[0]
    assert frame[Word.OPS : Word.OPS + 2].tolist() == [Op.WRITE_SYSREG, SysReg.SCTLR_EL1]
    assert frame[Word.OPS + 2] & 1 == 0, "MMU off"
    assert guest.take(1)[0] == AnswerFlag.PARK


def boot(guest: SimulatedGuest) -> None:
    for pe in range(guest.nr_cpus):
        guest.reset(pe)


def test_cpu_on_wakes_the_parked_cpu_at_its_entry_point(guest: SimulatedGuest) -> None:
    server = guest.server()
    boot(guest)
    serve(server)
    guest.take(0)
    guest.take(1)
    guest.smc(0, Psci.CPU_ON | 0x4000_0000, 1, 0x4100_0000, 0x55)
    serve(server)
    assert guest.take(0)[X0] == 0
    assert guest.take_kicks() == [1]
    guest.post(1, Kind.KICK)
    serve(server)
    answer = guest.take(1)
    assert answer[PC : X0 + 1] == [0x4100_0000, EL1H, 0x55]
    guest.smc(0, Psci.AFFINITY_INFO | 0x4000_0000, 1, 0)
    guest.smc(1, Psci.CPU_OFF)
    serve(server)
    assert guest.take(0)[X0] == 0, "ON"
    assert guest.take(1)[0] & AnswerFlag.PARK
    guest.smc(0, Psci.AFFINITY_INFO | 0x4000_0000, 1, 0)
    serve(server)
    assert guest.take(0)[X0] == 1, "OFF"


def test_cpu_on_before_the_target_has_left_reset_is_remembered(guest: SimulatedGuest) -> None:
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    guest.smc(0, Psci.CPU_ON, 1, 0x4100_0000, 0)
    serve(server)
    assert guest.take(0)[X0] == 0
    guest.reset(1)
    serve(server)
    assert guest.take(1)[0] == AnswerFlag.PARK
    guest.post(1, Kind.KICK)
    serve(server)
    assert guest.take(1)[PC] == 0x4100_0000


def test_cpu_on_of_the_time_before_a_reset_starts_nobody(guest: SimulatedGuest) -> None:
    """After a reset the CPUs come in any order: CPU 1 may be there before CPU 0, whose reset is the machine's."""
    server = guest.server()
    boot(guest)
    serve(server)
    guest.take(0)
    guest.smc(0, Psci.CPU_ON, 1, 0x4100_0000, 0)
    serve(server)
    guest.reset(1)
    serve(server)
    assert guest.take(1)[0] == AnswerFlag.PARK
    guest.reset(0)
    serve(server)
    guest.post(1, Kind.KICK)
    serve(server)
    assert guest.take(1)[0] == AnswerFlag.PARK


def test_a_wake_up_that_nobody_asked_for_parks_again(guest: SimulatedGuest) -> None:
    server = guest.server()
    boot(guest)
    serve(server)
    guest.take(1)
    guest.post(1, Kind.KICK)
    serve(server)
    assert guest.take(1)[0] == AnswerFlag.PARK


def test_an_injected_event_enters_its_handler_and_completes(guest: SimulatedGuest) -> None:
    server = guest.server()
    boot(guest)
    serve(server)
    guest.take(0)
    for call in (
        (Function.EVENT_REGISTER, 0, 0x4300_0000, 0xAB, 0, 0),
        (Function.EVENT_ENABLE, 0),
        (Function.PE_UNMASK,),
    ):
        guest.smc(0, *call)
        serve(server)
        assert guest.take(0)[X0] == 0
    server.trigger(0, 0)
    assert guest.take_kicks() == [0]
    guest.window.contexts[0][7] = 0x7777
    interrupted = guest.window.contexts[0].tolist()
    guest.post(0, Kind.KICK)
    serve(server)
    answer = guest.take(0)
    assert answer[PC] == 0x4300_0000
    assert answer[X0 : X0 + 4] == [0, 0xAB, interrupted[0], interrupted[1]]
    assert answer[X0 + 5] == 0x7777, "x4..x17 stay"
    guest.smc(0, Function.EVENT_COMPLETE, 0)
    serve(server)
    assert guest.take(0)[PC:] == interrupted
    assert server.status()["counts"]["completed"] == 1


def test_complete_and_resume_writes_elr_and_spsr(guest: SimulatedGuest) -> None:
    server = guest.server()
    boot(guest)
    serve(server)
    guest.take(0)
    for call in ((Function.EVENT_REGISTER, 0, 0x4300_0000, 0, 0, 0), (Function.EVENT_ENABLE, 0), (Function.PE_UNMASK,)):
        guest.smc(0, *call)
        serve(server)
        guest.take(0)
    interrupted = guest.window.contexts[0][0]
    server.trigger(0, 0)
    guest.post(0, Kind.KICK)
    serve(server)
    guest.take(0)
    guest.smc(0, Function.EVENT_COMPLETE_AND_RESUME, 0x4400_0280)
    serve(server)
    answer = guest.take(0)
    frame = guest.window.frames[0]
    assert answer[PC] == 0x4400_0280
    assert answer[0] >> 8 == 2
    assert frame[Word.OPS : Word.OPS + 6].tolist() == [
        *(Op.WRITE_SYSREG, SysReg.ELR_EL1, interrupted),
        *(Op.WRITE_SYSREG, SysReg.SPSR_EL1, EL1H),
    ]


def test_an_exception_that_is_no_smc_becomes_an_undefined_instruction(guest: SimulatedGuest) -> None:
    server = guest.server()
    boot(guest)
    serve(server)
    guest.take(0)
    frame = guest.window.frames[0]
    frame[Word.PC] = 0x4020_0100
    frame[Word.ESR_EL3] = 0x6230_0000
    guest.post(0, Kind.EXCEPTION)
    serve(server)
    assert guest.take(0)[0] & AnswerFlag.REPOST, "VBAR_EL1 is asked for first"
    frame[Word.OPS + 2] = 0xFFFF_8000_0801_0000
    guest.post(0, Kind.OPS)
    serve(server)
    answer = guest.take(0)
    assert answer[PC] == 0xFFFF_8000_0801_0200
    assert frame[Word.OPS : Word.OPS + 3].tolist() == [Op.WRITE_SYSREG, SysReg.ELR_EL1, 0x4020_0100]
    assert server.log.rejected == 1


@pytest.mark.parametrize("function", [0xC400_0033, 0x8400_0020, 0xC300_0000, 0, M64, 0xC400_003F, 0xBF00_FF01])
def test_unknown_functions_are_not_supported_and_touch_nothing_else(guest: SimulatedGuest, function: int) -> None:
    server = guest.server()
    boot(guest)
    serve(server)
    guest.take(0)
    guest.smc(0, function, 11, 22, 33, 44, 55)
    before = guest.window.contexts[0].tolist()
    serve(server)
    answer = guest.take(0)
    assert answer[X0] == NOT_SUPPORTED
    assert answer[X0 + 1 :] == before[3:]


def test_a_forged_sequence_number_is_ignored_and_said(guest: SimulatedGuest) -> None:
    server = guest.server()
    boot(guest)
    serve(server)
    guest.take(0)
    good = guest.window.seq[0]
    guest.window.frames[0][Word.KIND] = Kind.SMC
    guest.window.seq[0] = 0xDEAD_BEEF
    serve(server)
    assert guest.waiting(0)
    assert "0xdeadbeef after 0x1 is not the monitor's" in next(
        record["why"] for record in records(server) if record["type"] == "reject"
    )
    guest.window.seq[0] = good
    guest.smc(0, Function.VERSION)
    serve(server)
    assert guest.take(0)[X0] >> 48 == 1, "the CPU's own next call is served"


@pytest.mark.parametrize("kind", [0, 99, M64, Kind.FAULT, Kind.BAD_ANSWER])
def test_a_broken_frame_parks_its_cpu_and_not_the_other(guest: SimulatedGuest, kind: int) -> None:
    server = guest.server()
    boot(guest)
    serve(server)
    guest.take(0)
    guest.take(1)
    guest.post(1, kind)
    serve(server)
    assert guest.take(1)[0] == AnswerFlag.PARK
    assert server.log.rejected == 1
    guest.smc(0, Psci.PSCI_VERSION)
    serve(server)
    assert guest.take(0)[X0] == 0x1_0001


def test_a_call_from_a_cpu_that_is_off_is_refused(guest: SimulatedGuest) -> None:
    server = guest.server()
    boot(guest)
    serve(server)
    guest.take(1)
    guest.smc(1, Function.EVENT_REGISTER, 0, 0x4300_0000, 0, 0, 0)
    serve(server)
    assert guest.take(1)[0] == AnswerFlag.PARK
    assert server.log.rejected == 1


@given(
    words=st.lists(
        st.tuples(st.integers(0, 127), st.one_of(st.integers(0, M64), st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7]))),
        max_size=40,
    ),
    kinds=st.lists(st.one_of(st.sampled_from([*map(int, Kind)]), st.integers(0, M64)), max_size=12),
)
@settings(max_examples=examples(150))
def test_no_frame_can_crash_or_hang_the_backend(
    tmp_path_factory: pytest.TempPathFactory, words: list[tuple[int, int]], kinds: list[int]
) -> None:
    guest = SimulatedGuest(2, tmp_path_factory.mktemp("guest"))
    server = guest.server()
    boot(guest)
    serve(server)
    for n, kind in enumerate(kinds):
        frame = guest.window.frames[n & 1]
        for place, value in words:
            frame[place] = value
        frame[Word.KIND] = kind
        guest.window.seq[n & 1] = guest.window.seq[n & 1] + 1 & M64
        serve(server)
    assert len(server.firmware.snapshot()["psci"]["power"]) == 2


def test_affinities_are_those_of_qemu() -> None:
    assert [affinity(n) for n in (0, 15, 16, 31, 255, 256)] == [0, 15, 0x100, 0x10F, 0xF0F, 0x1000]
    assert len({affinity(n) for n in range(MAX_CPUS)}) == MAX_CPUS
