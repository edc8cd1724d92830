"""Attacks on the host's memory, each for a while: the backend's private memory stays under a bound, and a guest beside
it does not notice.

What a guest can write into its RAM this process writes into the same memory, faster than a vCPU of TCG's could, and
also while the guest is reset, which no guest could. QEMU_SDEI_ATTACK_SECONDS says how long each attack takes.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qemu_sdei.acpi import fdt
from qemu_sdei.backend.loop import memory_limit
from qemu_sdei.errors import SdeiError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import Kind, Word
from qemu_sdei.vm.options import GuestOptions
from tests.acpi.hostile_trees import TREES

pytestmark = [pytest.mark.guest, pytest.mark.slow]

SECONDS = float(os.environ.get("QEMU_SDEI_ATTACK_SECONDS", "5"))
BOUND = 64 << 20
"""Bytes of RssAnon."""
CPUS = 2
MEMORY = 64 << 20


def private_memory(pid: int) -> int:
    """RssAnon of a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise ProcessLookupError(f"process {pid} has ended")  # a zombie has no memory


class Victim:
    """A guest and its RAM."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        size = os.fstat(guest.placement.ram.fd).st_size
        self.map = mmap.mmap(guest.placement.ram.fd, size)
        self.ram = memoryview(self.map)
        start = layout.window_base(0, size)
        self.words = self.ram[start : start + layout.WINDOW_SIZE].cast("Q")
        self.random = random.Random(7)

    def frame(self, pe: int) -> memoryview:
        return self.words[layout.frame_offset(pe) // 8 :][: layout.FRAME_WORDS]

    def post(self, pe: int, kind: int, by: int = 1) -> None:
        """Forge a frame of `kind`."""
        frame = self.frame(pe)
        frame[Word.KIND], frame[Word.VECTOR] = kind, 0
        at = layout.SEQ_OFFSET // 8 + pe
        self.words[at] = self.words[at] + by & (1 << 64) - 1


def forged_resets(victim: Victim) -> None:
    """The tree of this turn where QEMU's was, and a RESET frame of CPU 0."""
    tree = victim.random.choice(TREES)()
    victim.ram[: len(tree)] = tree
    for by in (1, 1, 1, 100, -7):
        victim.post(0, Kind.RESET, by)
        time.sleep(0.001)
        victim.post(0, Kind.OPS, 1)  # a boot clears memory first, and goes on when that is done
        time.sleep(0.001)


def forged_steps(victim: Victim) -> None:
    """The end of micro-operations that a boot had asked for, with descriptors in the scratch area."""
    scratch = layout.SCRATCH_OFFSET // 8
    for n in range(0x1000, 0x2000):
        victim.words[scratch + n] = victim.random.getrandbits(64)
    for _ in range(20):
        victim.frame(0)[Word.OPS + 1] = 0x0902_0010
        victim.post(0, Kind.OPS)
        time.sleep(0.001)


def forged_frames(victim: Victim) -> None:
    """Anything in anybody's frame."""
    for _ in range(100):
        pe = victim.random.randrange(CPUS)
        frame = victim.frame(pe)
        for _ in range(victim.random.randrange(4)):
            frame[victim.random.randrange(layout.FRAME_WORDS)] = victim.random.choice(
                (0, 1, (1 << 64) - 1, victim.random.getrandbits(64), 0xC400_0020 + victim.random.randrange(32))
            )
        victim.post(pe, victim.random.choice((1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 99)), victim.random.choice((0, 1, 1, 1, 3)))
    time.sleep(0.001)


def kept_documents(victim: Victim) -> None:
    """The place of a snapshot's state document."""
    start = layout.KEPT_OFFSET // 8
    for n in range(0, layout.KEPT_SIZE // 8):
        victim.words[start + n] = victim.random.getrandbits(64)
    victim.post(1, Kind.KICK)
    time.sleep(0.01)


def resets_with_hostile_trees(victim: Victim) -> None:
    """Real resets, with a tree that is there again as soon as QEMU has put its own in place."""
    tree = victim.random.choice(TREES)()
    victim.guest.qmp("system_reset")
    limit = time.monotonic() + 0.5
    while time.monotonic() < limit:
        victim.ram[: len(tree)] = tree


@pytest.fixture(scope="module")
def bystander() -> Iterator[Guest]:
    options = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", smp=2, memory="64M")
    with Guest(options) as guest:
        guest.expect("idle: ready", 60)
        yield guest
        assert guest.backend_starts == 1


def under_attack(victim: Victim, bystander: Guest, attack: Callable[[Victim], None]) -> int:
    """Attack; return the most private memory that the backend ever had. The one beside must take its events."""
    most, end, turns = 0, time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        attack(victim)
        turns += 1
        pid = victim.guest.backend_pid
        if pid is not None:
            try:
                most = max(most, private_memory(pid))
            except OSError:
                pass  # it has just ended
        if turns % 20 == 1:
            assert bystander.inject(0, turns % 2, wait=True, timeout=60).outcome == "completed"
    return most


@pytest.mark.timeout(1200 + SECONDS)
@pytest.mark.parametrize("attack", [forged_resets, forged_steps, forged_frames, kept_documents])
def test_private_memory_is_bounded(
    attack: Callable[[Victim], None], bystander: Guest, record_property: Callable[[str, object], None]
) -> None:
    options = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", smp=CPUS, memory=MEMORY)
    with Guest(options) as guest:
        guest.expect("idle: ready", 60)
        before = private_memory(guest.backend_pid or 0)
        most = under_attack(Victim(guest), bystander, attack)
        record_property("RssAnon", most)
        print(f"{attack.__name__}: RssAnon {before >> 10} KiB before, {most >> 10} KiB at most in {SECONDS:g} s")
        assert most < BOUND
        assert guest.backend_starts == 1
        assert guest.status()["epoch"] == 1, "nobody but QEMU resets the machine"


@pytest.mark.timeout(1200 + SECONDS)
def test_real_resets_with_hostile_trees(bystander: Guest) -> None:
    """What no guest can do. It may end the guest, in a way that says why; the backend's memory is bounded all the
    same, and nobody else is harmed.
    """
    most, end = 0, time.monotonic() + SECONDS
    said = set()
    while time.monotonic() < end:
        options = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", smp=CPUS, memory=MEMORY)
        try:
            with Guest(options) as guest:
                guest.expect("idle: ready", 60)
                victim = Victim(guest)
                while time.monotonic() < end:
                    pid = guest.backend_pid
                    resets_with_hostile_trees(victim)
                    if pid is not None and Path(f"/proc/{pid}").exists():
                        most = max(most, private_memory(pid))
        except (SdeiError, OSError) as error:
            said.add(str(error).splitlines()[0][:200])
        assert bystander.inject(0, 0, wait=True, timeout=60).outcome == "completed"
    print(f"real resets: RssAnon {most >> 10} KiB at most in {SECONDS:g} s; ended by: {said or 'nothing'}")
    assert most < BOUND


def test_a_backend_at_its_limit_says_so_and_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall behind the bounds. Here it is moved close, and a client leans on it."""
    import socket

    monkeypatch.setenv(memory_limit.VARIABLE, "12M")
    options = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", smp=CPUS, memory=MEMORY)
    with Guest(options) as guest:
        guest.expect("idle: ready", 60)
        guest.inject(0, 0, wait=True, timeout=60)
        path = str(guest.placement.directory / "control.sock")
        clients = []
        try:
            for _ in range(40):
                client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                client.connect(path)
                clients.append(client)
                client.settimeout(30)
                client.sendall(b"[" * (1 << 20))
        except OSError:
            pass
        with pytest.raises(SdeiError, match=r"took too much memory.*memory limit of"):
            guest.wait_off(60)
        for client in clients:
            client.close()
        assert guest.backend_starts == 1


def test_trees_are_what_they_are_called() -> None:
    """Each is as large as a tree can be, about, and refused or read."""
    for make in TREES:
        tree = make()
        assert len(tree) > fdt.MAX_SIZE // 4
        assert struct.unpack_from(">I", tree)[0] == 0xD00DFEED
