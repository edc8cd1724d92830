"""Guests that attack their firmware: whatever they do, they harm nobody but themselves, and the trace says what it was.

Linux writes into the frame window by /dev/mem, which its kernel allows because the window is no RAM to it. A bare-metal
guest makes the calls that no sane guest makes (guest/bench/probe.c).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator

import pytest

from qemu_sdei.config import RAM_BASE
from qemu_sdei.errors import SdeiError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.image import proof_of
from qemu_sdei.monitor.layout import Header, Kind, Word
from qemu_sdei.rundir import MONITOR
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import NO_CALLS_OF_ITS_OWN, until
from tests.guest.load import EventLoad
from tests.guest.test_attacks import Victim

pytestmark = pytest.mark.guest

CPUS = 3
MEMORY = 512 << 20
WINDOW = layout.window_base(RAM_BASE, MEMORY)
HOTPLUG = "echo 0 >/sys/devices/system/cpu/cpu2/online && echo 1 >/sys/devices/system/cpu/cpu2/online"


class Attacker(Client):
    """Linux, whose root writes into the window."""

    def poke(self, offset: int, value: int) -> None:
        """Write a word of the window."""
        self.shell(f"devmem {WINDOW + offset:#x} 64 {value:#x}")

    def peek(self, offset: int) -> int:
        return int(self.shell(f"devmem {WINDOW + offset:#x} 64"), 16)

    def rejections(self) -> list[str]:
        return [str(note["why"]) for note in self.guest.trace(4000) if note["type"] == "reject"]

    def check_all_is_well(self, *cpus: int) -> None:
        """These CPUs take events, and calls are answered."""
        for cpu in cpus or range(CPUS):
            self.guest.inject(0, cpu, wait=True, timeout=30)
        self.shell(HOTPLUG)

    def revive(self) -> None:
        """After a reset everything is as new, whatever was written into the window before."""
        self.guest.reset()
        self.shell("dmesg -n 1")
        self.load("verbose=0")
        self.check_all_is_well()


@pytest.fixture(scope="module")
def bystander() -> Iterator[Guest]:
    """Another guest, which must not notice anything."""
    options = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", smp=2, memory="128M")
    with Guest(options) as guest:
        guest.expect("idle: ready", 30)
        yield guest
        assert guest.backend_starts == 1
        assert not [note for note in guest.trace(4000) if note["type"] == "reject"]


@pytest.fixture(scope="module")
def linux(bystander: Guest) -> Iterator[Guest]:
    options = GuestOptions(
        series="6.1", smp=CPUS, memory=MEMORY, files={KO: module_for("6.1")}, selection=NO_CALLS_OF_ITS_OWN
    )
    with Guest(options) as guest:
        yield guest


@pytest.fixture
def attacker(linux: Guest, bystander: Guest) -> Iterator[Attacker]:
    attacker = Attacker(linux)
    attacker.shell("dmesg -n 1")
    attacker.load("verbose=0")
    pid = linux.backend_pid
    yield attacker
    assert linux.backend_pid == pid, "the backend died"
    for vcpu in (0, 1):
        assert bystander.inject(0, vcpu, wait=True).outcome == "completed"
    linux.run("rmmod sdei_test")


def seq(cpu: int) -> int:
    return layout.SEQ_OFFSET + 8 * cpu


def frame(cpu: int, word: int) -> int:
    return layout.frame_offset(cpu) + 8 * word


def test_window_is_where_we_think_and_is_not_the_guests_ram(attacker: Attacker) -> None:
    assert attacker.peek(0) == layout.MAGIC
    ram = re.findall(r"^(\w+)-(\w+) : System RAM", attacker.shell("cat /proc/iomem"), re.MULTILINE)
    assert all(int(end, 16) < WINDOW for _, end in ram)


@pytest.mark.parametrize("number", [0, 0xDEAD_BEEF, (1 << 64) - 1])
def test_forged_sequence_number(attacker: Attacker, number: int) -> None:
    before = len(attacker.rejections())
    attacker.poke(seq(1), number)
    until("the backend says it", lambda: len(attacker.rejections()) > before)
    assert f"sequence number {number:#x}" in attacker.rejections()[-1]
    attacker.check_all_is_well()


def test_garbage_in_the_frame_of_an_idle_cpu(attacker: Attacker) -> None:
    """The monitor fills it anew before it posts it."""
    for word in (*range(16), *range(Word.PC, Word.X0 + 4), *range(Word.OPS, Word.OPS + 3)):
        attacker.poke(frame(1, word), 0x5A5A_5A5A_0000_0000 | word)
    attacker.check_all_is_well()


def test_garbage_in_the_kick_counters(attacker: Attacker) -> None:
    for cpu in range(CPUS):
        attacker.poke(layout.KICK_OFFSET + 8 * cpu, 0xFFFF_FFFF_FFFF_FFFF - cpu)
    for _ in range(3):
        attacker.check_all_is_well()


def test_a_guest_that_says_that_the_host_watches(attacker: Attacker) -> None:
    """The monitor then does not ring; the host looks all the same, a little later."""
    attacker.poke(8 * Header.POLL, 1)
    assert attacker.guest.run(HOTPLUG, timeout=60).status == 0
    attacker.check_all_is_well()


def test_garbage_in_the_header(attacker: Attacker) -> None:
    for word in (Header.MAGIC, Header.VERSION, Header.NR_CPUS):
        attacker.poke(8 * word, 0xFFFF_FFFF_FFFF)
    attacker.check_all_is_well()


def test_a_forged_reset_harms_its_own_cpu_until_the_next_reset(attacker: Attacker) -> None:
    """A frame like that is answered; what it counts from is nothing that a real reset must respect."""
    attacker.poke(frame(1, Word.KIND), Kind.RESET)
    attacker.poke(seq(1), 1 << 63)
    attacker.check_all_is_well(0)
    attacker.revive()


def test_a_frame_posted_in_the_monitors_name(attacker: Attacker) -> None:
    """The number that CPU 1 would use next: its own call then goes unseen, until a reset; the others go on."""
    attacker.poke(frame(1, Word.KIND), 99)
    attacker.poke(seq(1), attacker.peek(seq(1)) + 1)
    until("the backend says it", lambda: any("frame of kind 99" in why for why in attacker.rejections()))
    attacker.guest.inject(0, 0, wait=True)
    attacker.revive()


def test_garbage_everywhere_while_calls_run(attacker: Attacker, bystander: Guest) -> None:
    """The guest may well die of it. Its backend does not, nor does anybody else, and a reset brings it back."""
    guest = attacker.guest
    before = guest.status()["counts"]["rejected"]
    offsets = [*(seq(cpu) for cpu in range(CPUS)), *(layout.KICK_OFFSET + 8 * cpu for cpu in range(CPUS))]
    offsets += [frame(cpu, word) for cpu in range(CPUS) for word in (0, 1, 2, 4, 5, 12, 32, 33, 34, 35, 72, 73, 74)]
    words = " ".join(f"{WINDOW + offset:#x}" for offset in offsets)
    loop = f"while :; do for a in {words}; do devmem $a 64 $((RANDOM % 9 << RANDOM % 60)); done; done"
    guest.write(f"({loop}) >/dev/null 2>&1 &\r({loop}) >/dev/null 2>&1 &\r")
    guest.write(f"while {HOTPLUG}; do :; done 2>/dev/null &\r")
    with EventLoad(bystander, (0,), 2) as load:
        until("the backend rejects what it finds", lambda: rejected(guest) > before + 20 or stuck(guest))
    assert load.delivered > 0
    assert not load.refused
    attacker.revive()


def rejected(guest: Guest) -> int:
    return int(guest.status()["counts"]["rejected"])


def stuck(guest: Guest) -> bool:
    """No CPU of the guest gets an answer any more: then there is nothing left to reject."""
    try:
        for cpu in range(CPUS):
            guest.inject(0, cpu, wait=True, timeout=1)
            return False
    except SdeiError:
        pass
    return True


def test_killed_backend_finds_its_way_in_a_window_full_of_garbage(linux: Guest, bystander: Guest) -> None:
    """What the new one goes by is the journal; the window's own account counts for little."""
    attacker = Attacker(linux)
    attacker.load("verbose=0")
    for word in (Header.MAGIC, Header.VERSION, Header.NR_CPUS):
        attacker.poke(8 * word, 0xFFFF_FFFF_FFFF)
    for cpu in range(CPUS):
        # One less than what the monitor saw last would hide the next kick, which harms the guest alone: far from it.
        attacker.poke(layout.KICK_OFFSET + 8 * cpu, 7 << 32)
    attacker.poke(seq(1), 0xDEAD_BEEF)
    pid = linux.backend_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until("another backend", lambda: linux.backend_pid != pid)
    until("the header is put right", lambda: attacker.peek(0) == layout.MAGIC)
    attacker.check_all_is_well(0, 2)
    attacker.revive()


# ---- bare metal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("smp", "virtualization"), [(1, False), (4, False), (2, True)], ids=["one", "EL1", "EL2"])
def test_calls_that_no_sane_guest_makes(smp: int, virtualization: bool) -> None:
    options = GuestOptions(
        kernel="builtin:bench",
        append=f"mode=hostile count=3000 smp={smp}",
        smp=smp,
        memory="128M",
        virtualization=virtualization,
        qemu_args=["-no-shutdown"],  # so that the backend can still be asked
    )
    with Guest(options) as guest:
        found = guest.expect(r"^(hostile: ok calls=(\d+) traps=(\d+)|FAIL.*)[\r\n]", 60)
        assert found[2], found[0]
        counts = guest.status()["counts"]
        assert counts["calls"] >= int(found[2])
        whys = {str(note["why"]).partition(" vector")[0] for note in guest.trace(4000) if note["type"] == "reject"}
        assert whys == {"exception to EL3: ESR 0x62303011"}, "the read of ICC_IAR0_EL1, and nothing else"
        assert counts["delivered"] == 0
        assert guest.backend_starts == 1


PROOF_AT = 0x28
"""In the monitor's image, which lies at 0."""
FORGED = {
    "read": (layout.Op.READ_PHYS | 8 << 8, PROOF_AT, 0),
    "write": (layout.Op.WRITE_PHYS | 8 << 8, PROOF_AT, 1),
    "become Secure": (layout.Op.WRITE_SYSREG, layout.SysReg.SCR_EL3, 0x530),
}


@pytest.mark.parametrize("what", FORGED)
def test_an_answer_that_a_guest_forges_does_not_reach_the_proof(what: str) -> None:
    """A guest writes FLAGS and ACK of the frame that comes next, and the monitor does what it reads there."""
    with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="64M")) as guest:
        guest.expect("idle: ready")
        victim = Victim(guest)
        proof = proof_of((guest.placement.directory / MONITOR).read_bytes())
        assert proof
        frame = victim.frame(1)

        def carried_out() -> bool:
            frame[Word.OPS], frame[Word.OPS + 1], frame[Word.OPS + 2] = FORGED[what]
            frame[Word.FLAGS] = 1 << layout.OPS_SHIFT
            frame[Word.ACK] = victim.words[layout.SEQ_OFFSET // 8 + 1] + 1
            with contextlib.suppress(SdeiError):
                guest.inject(0, 1)
            time.sleep(0.05)
            return bool(frame[Word.OPS] & layout.OP_ABORTED or frame[Word.KIND] == Kind.BAD_ANSWER or found())

        def found() -> bool:
            return proof in (frame[Word.OPS + 2], *frame[Word.X0 : Word.X30 + 1])

        until("the monitor has done it", carried_out)
        assert not found()
        assert (frame[Word.KIND] == Kind.BAD_ANSWER) is (what == "become Secure")
        guest.reset()
        guest.expect("idle: ready")
        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"
