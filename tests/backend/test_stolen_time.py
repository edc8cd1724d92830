"""Stolen time: from the vCPUs' threads into the records that the guest reads, over resets, deaths and moves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qemu_sdei.backend.control import state_document
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.backend.loop.stolen_time import FOREVER_MS, OFTEN_MS, SELDOM_MS
from qemu_sdei.backend.loop.vcpu_threads import VcpuThreads
from qemu_sdei.monitor import layout
from qemu_sdei.services.pv_time import STRIDE, Function
from tests.backend.handed_over import machine
from tests.backend.simulated import SimulatedGuest, serve

MS = 1_000_000
CPUS = 2


class Guest(SimulatedGuest):
    """One whose vCPUs' threads wait as a test says."""

    def __init__(self, directory: Path) -> None:
        super().__init__(CPUS, directory)
        self.stolen_time = True
        self.delays = {0: 5_000 * MS, 1: 9_000 * MS}

    def waited(self) -> dict[int, int]:
        return dict(self.delays)

    def started(self) -> Server:
        """A backend, and the machine comes out of reset."""
        server = self.server()
        server.stolen.threads = self
        self.boot_again(server)
        return server

    def boot_again(self, server: Server) -> None:
        self.reset(0)
        serve(server)
        self.take(0)

    def ask(self, server: Server, function: int = Function.ST) -> int:
        self.smc(0, function)
        serve(server)
        return self.take(0)[3]

    def turn(self, server: Server) -> list[int]:
        """Time passes, and the backend goes on. Returns what the records say."""
        self.counter += SELDOM_MS * MS // 16
        server.stolen.tick()
        return [record[1] for record in self.window.pv_time]


def test_who_has_asked_is_told_of_what_was_stolen_since(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    server = guest.started()
    assert guest.turn(server) == [0, 0]
    assert guest.ask(server) == guest.window.base + layout.PV_TIME_OFFSET
    assert guest.turn(server) == [0, 0]
    guest.delays = {0: 5_007 * MS, 1: 9_100 * MS}
    assert guest.turn(server) == [7 * MS, 0]
    assert guest.window.pv_time[0][0] == 0


def test_records_of_two_cpus_are_a_stride_apart(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    guest.window.pv_time[1][1] = 0x77
    at = guest.window.base - guest.window.ram_base + layout.PV_TIME_OFFSET + STRIDE + 8
    assert guest.window.ram[at] == 0x77
    assert layout.PV_TIME_STRIDE == STRIDE


def test_it_is_looked_at_often_while_it_grows_and_seldom_while_it_does_not(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    server = guest.started()
    assert server.stolen.tick() == FOREVER_MS
    guest.ask(server)
    waits = []
    for _ in range(64):
        guest.counter += SELDOM_MS * MS // 16
        waits.append(server.stolen.tick())
    assert waits[-1] == SELDOM_MS
    guest.delays[0] += 40 * MS  # one in a hundred
    guest.counter += SELDOM_MS * MS // 16
    assert server.stolen.tick() == SELDOM_MS
    guest.delays[0] += 400 * MS
    guest.counter += SELDOM_MS * MS // 16
    assert server.stolen.tick() == OFTEN_MS


def test_a_thread_of_another_qemu_does_not_take_time_back(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    server = guest.started()
    guest.ask(server)
    guest.turn(server)
    guest.delays[0] += 30 * MS
    assert guest.turn(server)[0] == 30 * MS
    guest.delays[0] = 1 * MS
    assert guest.turn(server)[0] == 30 * MS
    guest.delays.clear()
    assert guest.turn(server)[0] == 30 * MS
    guest.delays[0] = 3 * MS
    assert guest.turn(server)[0] == 32 * MS


def test_a_reset_begins_anew(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    server = guest.started()
    guest.ask(server)
    guest.turn(server)
    guest.delays[0] += 30 * MS
    guest.turn(server)
    guest.boot_again(server)
    guest.delays[0] += 30 * MS
    assert guest.turn(server) == [0, 0]
    guest.ask(server)
    assert guest.turn(server) == [0, 0]


def test_a_backend_that_comes_after_another_one_takes_nothing_back(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    server = guest.started()
    guest.ask(server)
    guest.turn(server)
    guest.delays[0] += 30 * MS
    guest.turn(server)
    other = guest.server()
    other.stolen.threads = guest
    other.recover()
    assert guest.turn(other)[0] == 30 * MS
    guest.delays[0] += 5 * MS
    assert guest.turn(other)[0] == 35 * MS


def test_it_goes_along_with_the_guest(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    server = guest.started()
    server.guest.machine = machine(CPUS)
    guest.ask(server)
    guest.turn(server)
    guest.delays[0] += 30 * MS
    guest.turn(server)
    server.pause()
    document = state_document.take(server)
    guest.delays[0] += 99 * MS
    assert guest.turn(server)[0] == 30 * MS, "a guest that leaves is left alone"
    (tmp_path / "there").mkdir()
    there = Guest(tmp_path / "there")
    there.window.pv_time[0][1] = there.window.pv_time[1][1] = 1 << 50
    other = there.server()
    other.stolen.threads = there
    other.guest.machine = machine(CPUS)
    state_document.restore(other, document)
    assert [record[1] for record in there.window.pv_time] == [30 * MS, 0]
    assert there.turn(other) == [30 * MS, 0]
    there.delays[0] += 4 * MS
    assert there.turn(other) == [34 * MS, 0]


@pytest.mark.parametrize("value", [0, 1 << 63, (1 << 64) - 1])
def test_what_a_guest_writes_into_its_record_is_written_over(tmp_path: Path, value: int) -> None:
    """Without stage 2 it can."""
    guest = Guest(tmp_path)
    server = guest.started()
    guest.ask(server)
    guest.turn(server)
    guest.window.pv_time[0][0] = guest.window.pv_time[0][1] = value
    other = guest.server()
    other.stolen.threads = guest
    other.recover()
    assert guest.turn(other) == [0, 0]
    assert guest.window.pv_time[0][0] == 0


def _threads(proc: Path, pid: int, names: dict[int, str]) -> None:
    for tid, name in names.items():
        folder = proc / str(pid) / "task" / str(tid)
        folder.mkdir(parents=True)
        (folder / "comm").write_text(f"{name}\n")
        (folder / "schedstat").write_text(f"100 {tid} 3\n")


def test_threads_are_known_by_their_names(tmp_path: Path) -> None:
    _threads(tmp_path, 10, {10: "python", 11: "CPU"})
    _threads(tmp_path, 20, {20: "qemu-system-aar", 21: "CPU 0/TCG", 23: "CPU 12/TCG", 25: "call_rcu"})
    found = VcpuThreads(lambda: (10, 99, 20), 2, str(tmp_path))
    assert found.waited() == {0: 21, 12: 23}
    (tmp_path / "20/task/21/schedstat").write_text("100 1021 3\n")
    assert found.waited() == {0: 1021, 12: 23}


def test_threads_that_are_not_there_yet_are_looked_for_again(tmp_path: Path) -> None:
    _threads(tmp_path, 20, {21: "CPU 0/TCG"})
    found = VcpuThreads(lambda: (20,), 2, str(tmp_path))
    assert found.waited() == {0: 21}
    _threads(tmp_path, 20, {22: "CPU 1/TCG"})
    assert found.waited() == {0: 21, 1: 22}


@pytest.mark.parametrize("text", ["", "1", "1 x 2", "-"])
def test_a_figure_that_is_none_is_no_figure(tmp_path: Path, text: str) -> None:
    _threads(tmp_path, 20, {21: "CPU 0/TCG"})
    (tmp_path / "20/task/21/schedstat").write_text(text)
    assert VcpuThreads(lambda: (20,), 1, str(tmp_path)).waited() == {}


def test_where_no_thread_has_such_a_name_nothing_is_known() -> None:
    assert VcpuThreads(lambda: (os.getpid(),), 1).waited() == {}
