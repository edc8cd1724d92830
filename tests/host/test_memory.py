"""Guest RAM: sizes that cannot be, and memory that belongs to nobody when its users are gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.host import memory
from qemu_sdei.host.environment import find_qemu
from qemu_sdei.host.lost_pages import LOSES_NOTHING, TRACKED
from qemu_sdei.vm.machine_checks import check_machine
from qemu_sdei.vm.options import GuestOptions


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("63M", "too small"),
        (4096, "too small"),
        ("256G", "too much"),
        (1 << 26 | 1, "multiple"),
        ("1000004K", "multiple"),
    ],
)
def test_sizes_that_cannot_be(text: str | int, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        memory.ram_size(text)


def test_sizes_that_can() -> None:
    assert memory.ram_size("64M") == 64 << 20
    assert memory.ram_size(1 << 30) == 1 << 30


def test_padded_size_is_one_of_which_qemu_loses_no_pages() -> None:
    assert memory.ram_size("64M", padded=True) == (64 << 20) + 8192
    assert memory.ram_size((64 << 20) + 65536, padded=True) == (64 << 20) + 65536
    assert memory.ram_size("255G", padded=True) == (255 << 30) - 8192


@pytest.mark.parametrize(
    ("size", "nr_cpus", "padded"),
    [("1G", 2, True), ("64M", 8, True), ("1G", 3, False), ("2G", 1, True), ("3G", 1, False), (1 << 30, 1, False)],
)
def test_padded_by_default_where_that_costs_little(size: str | int, nr_cpus: int, padded: bool, tmp_path: Path) -> None:
    assert memory.padded_by_default(size, nr_cpus, None) is padded
    assert memory.padded_by_default(size, nr_cpus, tmp_path) is padded
    options = GuestOptions(kernel="builtin:bench", memory=size, smp=nr_cpus)
    loses = find_qemu(None).version < LOSES_NOTHING
    assert bool(check_machine(options)[1] % TRACKED) is (padded and loses)
    assert check_machine(replace(options, pad_memory=True))[1] % TRACKED
    assert not check_machine(replace(options, pad_memory=False))[1] % TRACKED


def test_a_file_of_huge_pages_has_only_whole_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There may be no such file system here."""
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bsize=2 << 20))
    assert not memory.padded_by_default("64M", 2, tmp_path)


@pytest.mark.parametrize("in_file", [False, True])
def test_ram_has_no_name_and_is_empty(in_file: bool, tmp_path: Path) -> None:
    fd = memory.create(1 << 26, tmp_path if in_file else None)
    try:
        assert list(tmp_path.iterdir()) == []
        assert os.fstat(fd).st_size == 1 << 26
        assert os.fstat(fd).st_mode & 0o077 == 0 or not in_file
        assert not os.get_inheritable(fd)
        # What QEMU does: open it once more by the descriptor.
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        os.pwrite(again, b"hello", 4096)
        os.close(again)
        assert os.pread(fd, 5, 4096) == b"hello"
    finally:
        os.close(fd)


def test_a_directory_without_unnamed_files_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY, raising=False)  # what a file system without it answers: EISDIR
    fd = memory.create(1 << 26, tmp_path)
    os.close(fd)
    assert list(tmp_path.iterdir()) == []


def test_a_full_directory_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=10, f_frsize=1 << 20))
    with pytest.raises(UsageError, match=r"has 10M free, the guest's RAM needs 1G: use less --memory"):
        memory.check_free(1 << 30, tmp_path)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory that has room for 1 MiB, as a full /dev/shm."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("only root can mount a file system")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_file_system_that_is_full(tiny: Path) -> None:
    result = subprocess.run(
        [*f"{sys.executable} -m qemu_sdei run --kernel builtin:bench --memory 128M --memory-path".split(), str(tiny)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == f"qemu-sdei: error: {tiny} has 1M free, the guest's RAM needs 128M: " + (
        "use less --memory or another --memory-path\n"
    )
    assert list(tiny.iterdir()) == []


def test_a_directory_that_is_not_there_is_told() -> None:
    with pytest.raises(UsageError, match="No such file"):
        memory.check_free(1 << 30, Path("/nonexistent"))
    with pytest.raises(UsageError, match="cannot be made in /nonexistent"):
        memory.create(1 << 30, Path("/nonexistent"))


def test_more_than_the_host_has_is_told() -> None:
    with pytest.raises(UsageError, match="of memory available"):
        memory.check_free(1 << 60, None)
    memory.check_free(1 << 20, None)


def test_a_limit_of_the_control_group_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qemu_sdei.host.cgroup.available", lambda: 100 << 20)
    assert memory.available() == 100 << 20
    with pytest.raises(UsageError, match=r"100M of memory available, the guest's RAM needs 128M: use less --memory"):
        memory.check_free(128 << 20, None)
