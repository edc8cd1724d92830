"""Guests that forge, in the frame of CPU 0, the micro-operations by which an ACPI boot reads QEMU's fw_cfg."""

from __future__ import annotations

import pytest

from qemu_sdei.backend.reset.fw_cfg_dma import SECOND_DIRECTORY
from qemu_sdei.backend.reset.loader import START
from qemu_sdei.config import RAM_BASE
from qemu_sdei.guest.guest import Guest
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import MAX_OPS, OP_WORDS, SCRATCH_OFFSET, Kind, Word
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import NO_CALLS_OF_ITS_OWN, plain, until

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux", "runtime")]

FW_CFG_DMA = 0x0902_0010
DESCRIPTOR = 16
"""Bytes."""


@pytest.fixture
def guest() -> Guest:
    return Guest(GuestOptions(series="6.1", boot="acpi", smp=2, selection=NO_CALLS_OF_ITS_OWN))


def poke(guest: Guest, words: dict[int, int]) -> str:
    """Shell commands that write words into the window, all in one go."""
    window = layout.window_base(RAM_BASE, guest.placement.plan.ram_size)
    return "; ".join(f"devmem {window + offset:#x} 64 {value:#x}" for offset, value in words.items())


def forged_step(guest: Guest, step: int) -> dict[int, int]:
    """The words of a frame that brings back the micro-operations of this step of a boot."""
    scratch = layout.window_base(RAM_BASE, guest.placement.plan.ram_size) + SCRATCH_OFFSET
    descriptor = scratch + step * MAX_OPS * DESCRIPTOR
    swapped = int.from_bytes(descriptor.to_bytes(8, "big"), "little")
    frame = {Word.KIND: int(Kind.OPS), Word.VECTOR: 0, Word.OPS + 1: FW_CFG_DMA, Word.OPS + OP_WORDS - 1: swapped}
    return {layout.frame_offset(0) + 8 * word: value for word, value in frame.items()}


def test_a_guest_that_forges_a_step_of_its_boot(guest: Guest) -> None:
    """Its backend goes on, the machine is not booted under it, and after a reset it boots as ever."""
    with guest:
        guest.run("dmesg -n 1")
        pid = guest.backend_pid
        assert guest.status()["epoch"] == 1
        garbage = {SCRATCH_OFFSET + SECOND_DIRECTORY.offset + 8 * n: (1 << 64) - 1 - n for n in range(8)}
        for n, step in enumerate((START, START + 1, START + 2, START + 3, 15)):
            # CPU 0's next number, at once: each of its own calls takes the one that it had before.
            words = forged_step(guest, step) | garbage
            sequence = layout.SEQ_OFFSET
            number = f"$(($(devmem {window_of(guest) + sequence:#x} 64) + 1))"
            guest.run(f"taskset 2 sh -c '{poke(guest, words)}; devmem {window_of(guest) + sequence:#x} 64 {number}'")
            until("the backend says it", lambda n=n: guest.status()["counts"]["rejected"] > n)
        assert guest.status()["epoch"] == 1
        assert (guest.backend_pid, guest.backend_starts) == (pid, 1)
        assert plain(guest.run("echo alive").output) == "alive\n"
        guest.reset()
        assert plain(guest.run("dmesg | grep -c 'ACPI: SDEI'").output) == "1\n"
        assert guest.status()["epoch"] == 2
        assert guest.poweroff().guest


def window_of(guest: Guest) -> int:
    return layout.window_base(RAM_BASE, guest.placement.plan.ram_size)
