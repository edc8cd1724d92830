"""A guest's RAM in a file of its own."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.saving import ram_file

PAGE = 4096
SIZE = 8 << 20


@pytest.fixture
def ram() -> Iterator[list[int]]:
    """Two RAMs of zeroes."""
    fds = [os.memfd_create("test"), os.memfd_create("test")]
    for fd in fds:
        os.ftruncate(fd, SIZE)
    yield fds
    for fd in fds:
        os.close(fd)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content(fd: int) -> bytes:
    return os.pread(fd, SIZE, 0)


@pytest.mark.parametrize(
    "places",
    [
        [],
        [(0, b"first")],
        [(SIZE - 1, b"x")],
        [(PAGE - 1, b"ab"), (5 * PAGE, b"c"), (3 << 20, os.urandom(2 << 20))],
        [(0, os.urandom(SIZE))],
    ],
    ids=["nothing", "first", "last", "some", "all"],
)
def test_it_comes_back_as_it_was(ram: list[int], tmp_path: Path, places: list[tuple[int, bytes]]) -> None:
    for at, data in places:
        os.pwrite(ram[0], data, at)
    path = tmp_path / "ram"
    ram_file.write(path, ram[0], SIZE)
    ram_file.load(path, ram[1], SIZE, digest(path))
    assert content(ram[0]) == content(ram[1])
    assert path.stat().st_size <= ram_file.limit(SIZE)


def test_pages_of_zeroes_take_no_room(ram: list[int], tmp_path: Path) -> None:
    """Neither in the file, though the guest has written them, nor in memory where it goes on."""
    os.pwrite(ram[0], bytes(SIZE), 0)
    os.pwrite(ram[0], b"x", 6 * PAGE)
    path = tmp_path / "ram"
    ram_file.write(path, ram[0], SIZE)
    assert path.stat().st_size < 2 * PAGE
    ram_file.load(path, ram[1], SIZE, digest(path))
    assert os.fstat(ram[1]).st_blocks * 512 == PAGE


def made(*extents: tuple[int, int], size: int = SIZE, count: int | None = None, magic: bytes = b"qsdeiRAM") -> bytes:
    head = struct.pack("<8sQQ", magic, len(extents) if count is None else count, size)
    return head + b"".join(struct.pack("<QQ", *each) for each in extents) + b"x" * sum(each[1] for each in extents)


HOSTILE = {
    "empty": b"",
    "another": made((0, PAGE), magic=b"qsdeiROM"),
    "other size": made((0, PAGE), size=SIZE * 2),
    "too many": made((0, PAGE), count=1 << 60),
    "more than there are": made((0, PAGE), count=200),
    "beyond": struct.pack("<8sQQQQ", b"qsdeiRAM", 1, SIZE, SIZE - 1, 2) + b"xx",
    "far beyond": struct.pack("<8sQQQQ", b"qsdeiRAM", 1, SIZE, 1 << 63, 1 << 63),
    "long": struct.pack("<8sQQQQ", b"qsdeiRAM", 1, SIZE, 0, (1 << 64) - 1),
    "nothing": made((PAGE, 0)),
    "backwards": made((PAGE, PAGE), (0, PAGE)),
    "twice": made((0, PAGE), (0, PAGE)),
    "cut": made((0, PAGE))[:-1],
    "longer": made((0, PAGE)) + b"x",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_though_its_sum_is_right(ram: list[int], tmp_path: Path, name: str) -> None:
    path = tmp_path / "ram"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(UsageError, match=r"ram is damaged, or of another saved guest"):
        ram_file.load(path, ram[1], SIZE, digest(path))


def test_a_damaged_file_is_refused(ram: list[int], tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(made((0, PAGE)))
    known = digest(path)
    path.write_bytes(made((0, PAGE))[:-1] + b"y")
    with pytest.raises(UsageError, match="damaged"):
        ram_file.load(path, ram[1], SIZE, known)
    path.unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        ram_file.load(path, ram[1], SIZE, known)
