"""Guest RAM of both sides compared and repaired, in files with holes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from qemu_sdei.errors import ProtocolError
from qemu_sdei.migration import ram

SIZE = (5 << 20) + 8192
"""Not whole chunks, as RAM is."""


@pytest.fixture
def fds() -> Iterator[tuple[int, int]]:
    both = os.memfd_create("source"), os.memfd_create("destination")
    for fd in both:
        os.ftruncate(fd, SIZE)
    yield both
    for fd in both:
        os.close(fd)


WRITES = {
    0: (b"both", b"both"),
    8192: (b"here", b"there"),
    (1 << 20) - 1: (b"ends a chunk, and begins one", b""),
    (3 << 20) + 5: (b"a hole there", b""),
    4 << 20: (b"", b"a hole here"),
    SIZE - 4: (b"last", b"lost"),
}
DIFFERING = [8192, (1 << 20) - 4096, 1 << 20, 3 << 20, 4 << 20, SIZE - 4096]


def fill(fds: tuple[int, int]) -> None:
    for at, contents in WRITES.items():
        for fd, data in zip(fds, contents, strict=True):
            os.pwrite(fd, data, at)


def test_what_differs_is_found_and_repaired(fds: tuple[int, int]) -> None:
    fill(fds)
    assert ram.compare(*fds, SIZE, repair=False) == DIFFERING
    assert ram.compare(*fds, SIZE) == DIFFERING
    assert ram.compare(*fds, SIZE) == []
    assert os.pread(fds[0], SIZE, 0) == os.pread(fds[1], SIZE, 0)
    assert os.pread(fds[0], 4, 8192) == b"here", "the source is right"


def test_pages_apart_are_repaired_and_not_told_of(fds: tuple[int, int]) -> None:
    fill(fds)
    assert ram.compare(*fds, SIZE, apart=range(1 << 20, 4 << 20)) == [8192, (1 << 20) - 4096, 4 << 20, SIZE - 4096]
    assert ram.compare(*fds, SIZE) == []


def test_a_file_that_is_too_short_is_told(fds: tuple[int, int]) -> None:
    fill(fds)
    os.ftruncate(fds[1], SIZE - 8192)
    with pytest.raises(ProtocolError, match="shorter than"):
        ram.compare(*fds, SIZE)
