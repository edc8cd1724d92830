"""A guest that writes into the window in the name of the monitor: the backend survives, and a reset mends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.boot.config import Entry
from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.simulated import EL1H, ENTRY, SimulatedBoot, SimulatedGuest, records, serve
from tests.examples import examples

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
@settings(max_examples=examples(200))
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
    """(One of CPU 1 that is just the next reset's own number is not noticed; that guest has then hung its own CPU.)"""
    forged = Forged(tmp_path)
    guest, server = forged.guest, forged.server
    forged.reset()
    for words in pokes:
        forged.poke(words)
    epoch = server.firmware.machine.epoch
    forged.reset()
    assert server.firmware.machine.epoch > epoch
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
    assert "nobody waits for" in records(forged.server)[-1]["why"]


class CountedBoot(SimulatedBoot):
    """Counts how often guest RAM was looked at and written to."""

    loads = 0

    def load(self, epoch: int) -> Entry:
        CountedBoot.loads += 1
        return super().load(epoch)


def forge(forged: Forged, kind: int, proof: int | None) -> None:
    """CPU 1, say, writes a RESET frame, or the end of a boot's micro-operations, in CPU 0's name."""
    words = [(0, Word.KIND, kind), (0, Word.VECTOR, 0)]
    if proof is not None:
        words.append((0, Word.PROOF, proof))
    forged.poke([*words, (0, -1, forged.own[0] + 1)])


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.OPS])
@pytest.mark.parametrize("proof", [None, 0, 1, M64])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_boot_is_the_monitors_to_ask_for(tmp_path: Path, kind: int, proof: int | None, restarted: bool) -> None:
    """No RAM is read or written for one that a guest forges, nothing of the guest's is forgotten, and it runs on."""
    forged = Forged(tmp_path)
    guest = forged.guest
    guest.boot = CountedBoot
    forged.server = guest.server()
    forged.reset()
    assert guest.take(0)[1] == ENTRY.pc
    assert guest.window.frames[0][Word.PROOF] == 0, "the guest can read it"
    forged.call(Function.EVENT_REGISTER, 0, 0x4300_0000, 7)
    assert guest.take(0)[3] == 0
    loads = CountedBoot.loads
    if restarted:
        forged.server = guest.server()
        guest.window.frames[0][Word.KIND] = kind
        guest.window.frames[0][Word.VECTOR] = 0
        assert forged.server.recover()
    for _ in range(3):
        forge(forged, kind, proof)
    assert CountedBoot.loads == loads
    assert forged.server.firmware.machine.epoch == 1
    assert forged.server.status()["counts"]["rejected"] >= 3 or kind == Kind.OPS
    if kind == Kind.RESET:  # the number of an OPS frame is taken
        forged.call(Function.EVENT_STATUS, 0)
        assert guest.take(0)[3] == 1
        with pytest.raises(NotDeliveredError):
            forged.server.trigger(0, 1)
    forged.own[0] = guest.window.seq[0]
    forged.reset()
    assert forged.server.firmware.machine.epoch == 2
    assert CountedBoot.loads == loads + 1


def test_a_guest_of_an_older_version_boots_without_proof(tmp_path: Path) -> None:
    """It brings its monitor with it."""
    guest = SimulatedGuest(CPUS, tmp_path)
    guest.proof = 0
    server = guest.server()
    for epoch in (1, 2):
        guest.reset(1)
        guest.reset(0)
        serve(server)
        assert server.firmware.machine.epoch == epoch


def test_the_user_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be a mistake of the user's: QEMU was started with another monitor.bin."""
    forged = Forged(tmp_path)
    forged.reset()
    for _ in range(5):
        forge(forged, Kind.RESET, 5)
    assert capsys.readouterr().err.count("monitor.bin") == 2  # in one line


def test_a_frame_that_becomes_a_reset_while_it_is_answered(tmp_path: Path) -> None:
    """The guest writes into it after the backend has seen that it is something else: that CPU is parked."""
    forged = Forged(tmp_path)
    forged.reset()
    firmware, frame = forged.server.firmware, forged.guest.window.frames[0]
    frame[Word.KIND] = Kind.RESET
    firmware.handle(0, frame, forged.guest.window.contexts[0])
    assert firmware.machine.epoch == 1
    assert not firmware.boot.booting
    assert frame[Word.FLAGS] == AnswerFlag.PARK
    forged.reset()
    assert firmware.machine.epoch == 2
