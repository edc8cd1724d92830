"""Looks at vCPUs: what they say, and that nothing of the guest changes by them, whenever a backend dies."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from qemu_sdei.backend.loop.looks import MARK
from qemu_sdei.monitor.layout import AnswerFlag, Kind, SysReg, Word
from qemu_sdei.monitor.ops import mark_of
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.controlled import HANDLER, Backend, Peer
from tests.backend.simulated import SYSREGS, SimulatedGuest, read_registers, serve
from tests.backend.test_crash import World, _Kill

PC, X5 = 0x4020_1000, 0x1234_5678


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    backend = Backend(tmp_path)
    backend.boot()
    return backend


def come(guest: SimulatedGuest, pe: int) -> None:
    """The vCPU does the micro-operations that it was asked for, and posts the frame that brings their results."""
    frame = guest.window.frames[pe]
    assert guest.take(pe)[0] & AnswerFlag.REPOST
    assert mark_of(frame) == MARK
    read_registers(frame, pe)
    guest.post(pe, Kind.OPS)


def kick(backend: Backend, pe: int = 0) -> None:
    """The vCPU takes the kick and posts its frame, which is answered by a look."""
    assert pe in backend.guest.take_kicks()
    frame = backend.guest.window.frames[pe]
    frame[Word.PC], frame[Word.X0 + 5], frame[Word.X0 + 18] = PC, X5, 0x18
    backend.guest.post(pe, Kind.KICK)
    serve(backend.server)


def test_a_look_says_where_a_vcpu_is_and_changes_nothing_of_it(backend: Backend) -> None:
    peer = Peer(backend)
    assert peer.result(cmd="look", vcpus=[0])["waiting"] == [0]
    kick(backend)
    come(backend.guest, 0)
    serve(backend.server)
    flags, pc, _, *x = backend.guest.take(0)
    assert (flags, pc, x[5]) == (0, PC, X5)
    found = peer.result(cmd="look", vcpus=[0], ask=False)
    assert found["waiting"] == []
    (vcpu,) = found["vcpus"]
    assert vcpu["in_guest"]
    assert not vcpu["sleeps"]
    look = vcpu["look"]
    assert (look["pc"], look["x"][5], look["x"][18], len(look["x"])) == (PC, X5, 0x18, 31)
    assert look["registers"]["ICC_AP1R0_EL1"] == SYSREGS[SysReg.ICC_AP1R0_EL1]
    assert backend.guest.take_kicks() == []


def test_an_event_that_became_due_meanwhile_is_delivered_by_the_same_answer(backend: Backend) -> None:
    backend.enable(0)
    peer = Peer(backend)
    peer.result(cmd="look", vcpus=[0])
    peer.result(cmd="inject", event=0, vcpu=0)
    kick(backend)
    come(backend.guest, 0)
    serve(backend.server)
    _, pc, _, event, *_ = backend.guest.take(0)
    assert (pc, event) == (HANDLER, 0)


def test_a_cpu_that_is_off_stays_off(backend: Backend) -> None:
    peer = Peer(backend)
    peer.result(cmd="look", vcpus=[1])
    kick(backend, 1)
    come(backend.guest, 1)
    serve(backend.server)
    assert backend.guest.take(1)[0] & AnswerFlag.PARK
    assert peer.result(cmd="status")["pes"][1]["power"] == "off"


def test_a_cpu_that_sleeps_in_the_monitor_is_not_woken(backend: Backend) -> None:
    backend.call(0, Psci.CPU_SUSPEND, 0, 0, 0)
    frame = backend.guest.window.frames[0]
    frame[Word.DONE] = frame[Word.DONE] - 1  # it has the answer, and waits for an interrupt before it goes on
    found = Peer(backend).result(cmd="look", vcpus=[0])
    assert found["vcpus"][0]["sleeps"]
    assert found["waiting"] == []
    assert backend.guest.take_kicks() == []
    frame[Word.DONE] = frame[Word.DONE] + 1
    assert Peer(backend).result(cmd="look", vcpus=[0])["waiting"] == [0]


@pytest.mark.parametrize("killed", ["before the results come", "when they have come", "when they were taken"])
def test_a_backend_that_dies_in_a_look_is_replaced_by_one_that_goes_on(backend: Backend, killed: str) -> None:
    """The registers stay the guest's, and an event that became due is delivered once."""
    backend.enable(0)
    Peer(backend).result(cmd="look", vcpus=[0])
    kick(backend)
    guest = backend.guest
    if killed == "before the results come":
        second = guest.server()
        assert second.recover()
        come(guest, 0)
    else:
        come(guest, 0)
        if killed == "when they were taken":
            serve(backend.server)
        second = guest.server()
        assert second.recover()
    second.trigger(0, 0)
    serve(second)
    _, pc, _, x0, *x = guest.take(0)
    if killed == "when they were taken":
        assert (pc, x[4]) == (PC, X5)
        assert guest.take_kicks() == [0]
        guest.post(0, Kind.KICK)
        serve(second)
        _, pc, _, x0, *x = guest.take(0)
    assert (pc, x0, x[4]) == (HANDLER, 0, X5)
    guest.smc(0, Function.EVENT_COMPLETE, 0)
    serve(second)
    _, pc, _, *x = guest.take(0)
    assert (pc, x[5]) == (PC, X5)


def test_a_forged_result_is_a_kick(backend: Backend) -> None:
    guest = backend.guest
    frame = guest.window.frames[0]
    frame[Word.X0] = 0x77
    frame[Word.OPS] = MARK << 8 | 3
    guest.post(0, Kind.OPS)
    serve(backend.server)
    assert guest.take(0)[3] == 0x77


def test_vcpus_that_there_are_not_are_refused(backend: Backend) -> None:
    assert Peer(backend).error(cmd="look", vcpus=[2]) == ("usage", "vcpus is a list of numbers from 0 to 1")
    assert Peer(backend).error(cmd="look", vcpus="0")[0] == "usage"


def look_and_event(directory: Path, at: int) -> int:
    """A vCPU is looked at while an event becomes due for it; the backend is killed at line `at` of that. The event is
    handled once, and what it interrupted goes on as it was. Returns how many lines there were.
    """
    world = World(directory, _Kill(-1))
    guest = world.guest
    guest.reset(0)
    world.exchange(0)
    for function, *arguments in (
        (Function.EVENT_REGISTER, 0, HANDLER, 0, 0, 0),
        (Function.EVENT_ENABLE, 0),
        (Function.PE_UNMASK,),
    ):
        world.call(0, function, *arguments)
    frame = guest.window.frames[0]
    frame[Word.PC], frame[Word.X0 + 5] = PC, X5
    world.kill = _Kill(at)
    world.do(lambda server: server.looks.ask([0]))
    world.trigger(0, 0)
    while guest.take_kicks():
        guest.post(0, Kind.KICK)
        world.exchange(0)
    lines = world.kill.lines
    assert world.seen[-1][1][1] == HANDLER
    assert world.server.status()["counts"]["delivered"] == 1
    world.call(0, Function.EVENT_COMPLETE, 0)
    (_, (_, pc, _, *x)) = world.seen[-1]
    assert (pc, x[5]) == (PC, X5)
    assert world.server.status()["counts"]["completed"] == 1
    return lines


STEP = 27


@pytest.mark.parametrize("first", [n if n == 0 else pytest.param(n, marks=pytest.mark.slow) for n in range(STEP)])
def test_killed_at_each_line_of_a_look(first: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    lines = look_and_event(tmp_path_factory.mktemp("undisturbed"), -1)
    for at in range(first, lines, STEP):
        with TemporaryDirectory() as directory:
            look_and_event(Path(directory), at)
