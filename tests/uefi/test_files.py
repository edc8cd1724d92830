"""Files of a user's that UEFI is to have: images, variables, disks. What cannot be is one line that says why."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.errors import UsageError
from qemu_sdei.uefi import image, partitions, variables
from qemu_sdei.uefi.disk_image import DiskImage
from qemu_sdei.uefi.image_locks import in_use
from scripts.disklib.layout import LINUX, MIB, SYSTEM, write_gpt
from tests.uefi.images import qcow2_of

BRANCH = bytes.fromhex("00040014")
VOLUME = bytes(0x28) + b"_FVH"


def firmware(first: bytes = BRANCH, size: int = 0x2000) -> bytes:
    return (first.ljust(0x1000, b"\xff") + VOLUME).ljust(size, b"\xff")


# ---- images


def test_an_image_is_read_without_its_padding(tmp_path: Path) -> None:
    path = tmp_path / "CODE.fd"
    path.write_bytes(firmware(size=(2 << 20) + 5).ljust(64 << 20, b"\0"))
    data = image.load(str(path))
    assert len(data) == 4 << 20
    assert data.startswith(firmware())


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "the file is empty"),
        (bytes(4 << 20), "no firmware volume"),
        (b"\x7fELF".ljust(0x2000, b"\0"), "no firmware volume"),
        (firmware(bytes.fromhex("fe3f00ea")), "for 32-bit Arm"),
        (VOLUME.ljust(0x2000, b"\xff"), "x86, if anything"),
        (firmware(bytes.fromhex("6f00010a")), "for another machine"),
        (firmware(size=0x2000) + bytes(64 << 20), "64 MiB at most"),
    ],
    ids=["empty", "zeroes", "ELF", "Arm", "x86", "RISC-V", "large"],
)
def test_an_image_of_something_else(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "CODE.fd"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=what) as error:
        image.load(str(path))
    assert "\n" not in str(error.value)


# ---- variables


def volume(length: int = variables.SIZE) -> bytes:
    """The header of a volume with variables, with its checksum."""
    header = bytearray(struct.pack("<16x16sQ4sIHHHBB", bytes(16), length, b"_FVH", 0, 0x48, 0, 0, 0, 2) + bytes(16))
    header[50:52] = struct.pack("<H", -sum(struct.unpack("<36H", header)) & 0xFFFF)
    return bytes(header)


def kept(path: Path, data: bytes, size: int = variables.SIZE) -> Path:
    with path.open("wb") as file:
        file.write(data)
        file.truncate(size)
    return path


def test_variables_are_made_once_and_kept(tmp_path: Path) -> None:
    path = variables.check(tmp_path / "vars.fd")
    assert not path.exists()
    variables.create(path)
    assert path.stat().st_size == variables.SIZE
    assert path.stat().st_mode & 0o777 == 0o600
    kept(path, volume())
    variables.create(path)
    assert path.read_bytes().startswith(volume()[:16])
    assert variables.check(path) == path


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_erased_variables_are_sound(tmp_path: Path, fill: bytes) -> None:
    path = tmp_path / "vars.fd"
    path.write_bytes(fill * variables.SIZE)
    assert variables.check(path) == path


@pytest.mark.parametrize("at", range(72))
def test_damaged_variables(tmp_path: Path, at: int) -> None:
    data = bytearray(volume())
    data[at] ^= 0x11
    path = kept(tmp_path / "vars.fd", bytes(data))
    with pytest.raises(UsageError, match="damaged, or of something else: delete it"):
        variables.check(path)


@pytest.mark.parametrize("size", [0, 100, variables.SIZE - 1, variables.SIZE + 1])
def test_variables_of_another_size(tmp_path: Path, size: int) -> None:
    path = kept(tmp_path / "vars.fd", b"", size)
    with pytest.raises(UsageError, match=f"{size} bytes are not the 64 MiB"):
        variables.check(path)


def test_variables_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be made"):
        variables.check(tmp_path / "nowhere" / "vars.fd")


# ---- locks


def locked_as_qemu_does(path: Path, byte: int) -> int:
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, byte, 1, 0))
    return fd


@pytest.mark.parametrize(
    ("byte", "read_only", "found"), [(101, False, True), (101, True, True), (201, False, True), (201, True, False)]
)
def test_an_image_that_a_qemu_has_open_is_in_use(tmp_path: Path, byte: int, read_only: bool, found: bool) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(512))
    assert not in_use(path, read_only=read_only)
    fd = locked_as_qemu_does(path, byte)
    try:
        assert in_use(path, read_only=read_only) is found
    finally:
        os.close(fd)
    assert not in_use(path)


def test_variables_in_use(tmp_path: Path) -> None:
    path = kept(tmp_path / "vars.fd", volume())
    fd = locked_as_qemu_does(path, 201)
    try:
        with pytest.raises(UsageError, match="in use by another QEMU"):
            variables.check(path)
    finally:
        os.close(fd)


# ---- disks


def bootable(path: Path) -> bool | None:
    with DiskImage(path) as disk:
        return partitions.can_boot(disk)


@pytest.mark.parametrize("kind", ["raw", "qcow2", "compressed", "small clusters"])
@pytest.mark.parametrize(("partition", "found"), [(SYSTEM, True), (LINUX, False)], ids=["EFI", "Linux"])
def test_a_system_partition_is_found(tmp_path: Path, kind: str, partition: object, found: bool) -> None:
    path = tmp_path / "disk.img"
    write_gpt(path, [(LINUX, 1), (partition, 1)])  # type: ignore[list-item]
    if kind != "raw":
        bits = 12 if kind == "small clusters" else 16
        path.write_bytes(qcow2_of(path.read_bytes(), compressed=kind == "compressed", bits=bits))
    assert bootable(path) is found


def mbr(kind: int) -> bytes:
    return bytes(446 + 4) + bytes([kind]) + bytes(59) + b"\x55\xaa"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (mbr(0xEF), True),
        (mbr(0x83), False),
        (b"\xeb\x58\x90".ljust(82, b"\0") + b"FAT32   ".ljust(428, b"\0") + b"\x55\xaa", True),
        (bytes(0x8001) + b"CD001".ljust(0x807, b"\0") + b"EL TORITO SPECIFICATION", True),
        (bytes(4096), False),
        (b"", False),
    ],
    ids=["MBR", "MBR of Linux", "FAT", "CD", "nothing", "empty"],
)
def test_other_disks(tmp_path: Path, data: bytes, found: bool) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(data.ljust(0x9000, b"\0") if data else data)
    assert bootable(path) is found


def test_what_only_qemu_can_read_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    data = bytearray(qcow2_of(bytes(MIB)))
    data[8:16] = (0x200).to_bytes(8, "big")  # a backing file
    path.write_bytes(data)
    assert bootable(path) is None


@given(st.integers(0, 2 * 65536 + 40), st.binary(min_size=1, max_size=16))
def test_a_damaged_image_is_told_or_read(tmp_path_factory: pytest.TempPathFactory, at: int, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("disk")
    write_gpt(folder / "raw", [(SYSTEM, 1)])
    data = bytearray(qcow2_of((folder / "raw").read_bytes(), compressed=bool(at & 1)))
    data[at : at + len(noise)] = noise
    path = folder / "disk"
    path.write_bytes(data)
    with contextlib.suppress(UsageError):
        bootable(path)
    for file in folder.iterdir():
        file.unlink()
