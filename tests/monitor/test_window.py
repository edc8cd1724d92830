"""The shared mapping, the patched image, micro-operations in a frame, the doorbell's socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_sdei.errors import GuestTimeoutError, ProtocolError
from qemu_sdei.monitor import image, layout, ops
from qemu_sdei.monitor.doorbell import Doorbell
from qemu_sdei.monitor.layout import Header, Save, Word
from qemu_sdei.monitor.window import Window

RAM_BASE = 0x4000_0000
RAM_SIZE = 8 << 20


@pytest.fixture
def ram() -> Iterator[int]:
    fd = os.memfd_create("test-ram")
    os.ftruncate(fd, RAM_SIZE)
    yield fd
    os.close(fd)


def test_views_reach_the_bytes_that_the_layout_names(ram: int) -> None:
    window = Window(ram, RAM_BASE, RAM_SIZE, 3)
    window.announce()
    window.contexts[2][0] = 0x1122
    window.kick[1] = 7
    start = window.base - RAM_BASE
    assert int.from_bytes(os.pread(ram, 8, start), "little") == layout.MAGIC
    assert window.header[:5].tolist() == [layout.MAGIC, layout.VERSION, 3, 0, 0]
    assert int.from_bytes(os.pread(ram, 8, start + layout.KICK_OFFSET + 8), "little") == 7
    assert int.from_bytes(os.pread(ram, 8, start + layout.frame_offset(2) + 8 * Word.PC), "little") == 0x1122
    window.close()


def test_the_header_says_what_the_guests_monitor_is_of_and_is_to_save(ram: int) -> None:
    window = Window(ram, RAM_BASE, RAM_SIZE, 1)
    window.save = Save.COUNTER | Save.EL2
    window.announce(3)
    assert (window.header[Header.VERSION], window.header[Header.SAVE]) == (3, 3)
    window.close()


def test_a_ram_file_that_is_too_short_is_refused(ram: int) -> None:
    with pytest.raises(ProtocolError, match=r"8388608 bytes, not 16777216"):
        Window(ram, RAM_BASE, 2 * RAM_SIZE, 1)


def test_the_image_is_patched_and_nothing_else_changes() -> None:
    plain = image.blob()
    patched = image.patched(0x7FE0_0000, 4)
    assert len(patched) == len(plain)
    assert patched[:16] == plain[:16]
    assert patched[40:] == plain[40:]
    assert int.from_bytes(patched[16:24], "little") == 0x7FE0_0000
    assert int.from_bytes(patched[24:32], "little") == 4


def test_each_guests_monitor_has_a_proof_of_its_own() -> None:
    plain = image.patched(0x7FE0_0000, 4)
    assert image.proof_of(plain) == 0
    one, other = image.with_proof(plain), image.with_proof(plain)
    assert 0 != image.proof_of(one) != image.proof_of(other) != 0
    assert one[:40] == plain[:40]
    assert one[48:] == plain[48:]


def monitor_of(magic: bytes, version: int = 0) -> bytes:
    """The start of a monitor's image: the words that are at the same place in each version, and nothing of its code."""
    return bytes(8) + magic + bytes(32) + version.to_bytes(8, "little") + bytes(64)


def test_a_monitor_says_its_version() -> None:
    assert image.version_of(image.blob()) == layout.VERSION
    assert image.version_of(image.with_proof(image.patched(0x7FE0_0000, 4))) == layout.VERSION


def test_the_monitor_before_this_one_is_served() -> None:
    """SDEIMON2 did not say its version: it is 3. What lies at that place is its code, and stays as it is."""
    older = monitor_of(b"SDEIMON2", 0xD503_201F)
    assert image.version_of(older) == 3 == layout.OLDEST
    patched = image.with_proof(image.patched(0x7FE0_0000, 4, older))
    assert (patched[:16], patched[48:]) == (older[:16], older[48:])
    assert image.proof_of(patched) != 0


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (monitor_of(b"SDEIMON1"), 2),
        (monitor_of(b"SDEIMON3", 2), 2),
        (monitor_of(b"SDEIMON3", layout.VERSION + 1), layout.VERSION + 1),
    ],
)
def test_a_monitor_of_another_version_is_refused(data: bytes, version: int) -> None:
    words = f"frame window {version}, and this program knows 3 to 4: use the version of qemu-sdei that it was started"
    for look in (image.version_of, image.proof_of, image.with_proof, lambda data: image.patched(0x7FE0_0000, 1, data)):
        with pytest.raises(ProtocolError, match=words):
            look(data)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", bytes(4096)])
def test_something_else_is_no_monitor(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="monitor image"):
        image.patched(0x7FE0_0000, 1, data)


def test_micro_operations_go_in_and_results_come_out() -> None:
    frame = memoryview(bytearray(layout.FRAME_SIZE)).cast("Q")
    flags = ops.encode(frame, [ops.write_phys(0x90B_0400, 3, 4), ops.read_sysreg(layout.SysReg.VBAR_EL1)])
    assert flags == 2 << layout.OPS_SHIFT
    assert frame[Word.OPS : Word.OPS + 5].tolist() == [2 | 4 << 8, 0x90B_0400, 3, 3, layout.SysReg.VBAR_EL1]
    frame[Word.OPS] |= layout.OP_ABORTED
    frame[Word.OPS + 5] = 0x1234
    assert ops.decode(frame, 2) == [ops.OpResult(3, True), ops.OpResult(0x1234, False)]


def test_more_micro_operations_than_fit_are_refused() -> None:
    frame = memoryview(bytearray(layout.FRAME_SIZE)).cast("Q")
    with pytest.raises(ValueError, match="16 fit"):
        ops.encode(frame, [ops.read_phys(0)] * 17)


def test_a_doorbell_without_qemu_gives_up_and_says_where(tmp_path: Path) -> None:
    with pytest.raises(GuestTimeoutError, match=r"no QEMU listened at doorbell .*bell within 0\.05 s"):
        Doorbell(str(tmp_path / "bell"), 0.05)


def test_a_doorbell_rings_both_ways_and_notices_the_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bell"))
        listener.listen()
        bell = Doorbell(str(tmp_path / "bell"), 1)
        qemu, _ = listener.accept()
    bell.ring()
    assert qemu.recv(16) == b"\n"
    qemu.send(b"abc")
    assert bell.drain()
    qemu.close()
    assert not bell.drain()
    bell.ring()  # nobody there: no exception
    bell.close()


def test_what_can_only_be_read_is_not_written() -> None:
    """The monitor would refuse the whole answer, and the CPU be lost."""
    frame = memoryview(bytearray(8 * layout.FRAME_WORDS)).cast("Q")
    for register in layout.READ_ONLY:
        ops.encode(frame, [ops.read_sysreg(register)])
        with pytest.raises(ValueError, match=f"{register.name} can only be read"):
            ops.encode(frame, [ops.write_sysreg(register, 0)])
        with pytest.raises(ValueError, match="can be written"):
            ops.encode(frame, [ops.clear_sysregs(register, 1)])
