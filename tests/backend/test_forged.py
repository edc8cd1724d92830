"""A guest that writes into the window in the name of the monitor: the backend survives, and a reset mends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.simulated import EL1H, ENTRY, SimulatedGuest, serve

M64 = (1 << 64) - 1
CPUS = 2
NUMBERS = st.one_of(
    st.integers(0, M64),
    st.integers(0, 12),
    st.integers(0, 63).map(lambda n: 1 << n),
    st.sampled_from([M64, (1 << 48) - 1]),
)
POKE = st.tuples(st.integers(0, CPUS - 1), st.one_of(st.just(-1), st.sampled_from([*map(int, Word)])), NUMBERS)
"""(CPU, word of its frame or -1 for its sequence number, value)."""


class Forged:
    """A guest whose CPUs count their frames in secure memory, while something in it writes into the window."""

    def __init__(self, directory: Path) -> None:
        self.guest = SimulatedGuest(CPUS, directory)
        self.server = self.guest.server()
        self.own = [0] * CPUS

    def reset(self) -> None:
        for pe in reversed(range(CPUS)):
            self.guest.window.seq[pe] = self.own[pe]
            self.guest.reset(pe)
            self.own[pe] += 1
            serve(self.server)
            self.own[pe] = max(self.own[pe], self.guest.window.seq[pe])

    def poke(self, words: list[tuple[int, int, int]]) -> None:
        for pe, word, value in words:
            if word < 0:
                self.guest.window.seq[pe] = value
            else:
                self.guest.window.frames[pe][word] = value
        serve(self.server)

    def call(self, function: int, *arguments: int) -> None:
        self.guest.window.seq[0] = self.own[0]
        self.guest.smc(0, function, *arguments)
        self.own[0] += 1
        serve(self.server)


@given(pokes=st.lists(st.lists(POKE, max_size=6), max_size=8), calls=st.lists(st.sampled_from([*Function]), max_size=8))
@settings(max_examples=200)
def test_whatever_is_forged_the_backend_goes_on(
    tmp_path_factory: pytest.TempPathFactory, pokes: list[list[tuple[int, int, int]]], calls: list[Function]
) -> None:
    forged = Forged(tmp_path_factory.mktemp("guest"))
    forged.reset()
    for n, words in enumerate(pokes):
        forged.poke(words)
        if n < len(calls):
            forged.call(calls[n], n)
    forged.reset()
    assert len(forged.server.status()["pes"]) == CPUS


@pytest.mark.parametrize(
    "pokes",
    [
        [[(1, Word.KIND, Kind.RESET), (1, -1, 1 << 63)]],
        [[(1, Word.KIND, Kind.RESET), (1, -1, (1 << 48) - 1)], [(1, -1, 1 << 48)]],
        [[(0, Word.KIND, Kind.RESET), (0, -1, 1 << 47)]],
    ],
)
def test_forged_numbers_do_not_outlast_a_reset(tmp_path: Path, pokes: list[list[tuple[int, int, int]]]) -> None:
    """(One that is just the next reset's own number is not noticed; that guest has then hung its own reset.)"""
    forged = Forged(tmp_path)
    guest, server = forged.guest, forged.server
    forged.reset()
    for words in pokes:
        forged.poke(words)
    epoch = server.firmware.epoch
    forged.reset()
    assert server.firmware.epoch > epoch
    answer = guest.take(0)
    assert answer[1:4] == [ENTRY.pc, EL1H, ENTRY.x0]
    assert guest.take(1)[0] == AnswerFlag.PARK
    guest.smc(0, Psci.CPU_ON, 1, 0x4100_0000, 5)
    serve(server)
    assert guest.take(0)[3] == 0
    assert 1 in guest.take_kicks()
    guest.post(1, Kind.KICK)
    serve(server)
    assert guest.take(1)[1] == 0x4100_0000


def test_micro_operations_of_a_boot_that_is_over_are_nobodys(tmp_path: Path) -> None:
    """Else whoever forges them has the machine booted under a guest that runs."""
    forged = Forged(tmp_path)
    forged.reset()
    before = forged.server.status()
    forged.poke([(0, Word.KIND, Kind.OPS), (0, Word.VECTOR, 0), (0, -1, forged.own[0] + 1)])
    after = forged.server.status()
    assert after["epoch"] == before["epoch"]
    assert after["counts"]["rejected"] == before["counts"]["rejected"] + 1
    assert "nobody waits for" in [str(note) for note in forged.server.notes][-1]
