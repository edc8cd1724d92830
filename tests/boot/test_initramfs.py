"""The initramfs: an archive that Linux unpacks, with what init needs in it."""

from __future__ import annotations

import stat
import struct
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.boot import cpio, initramfs
from qemu_sdei.errors import UsageError
from tests.boot.newc import entries

PATHS = st.lists(st.text("abcXYZ0189-_.", min_size=1, max_size=8), min_size=1, max_size=4).map("/".join)


def busybox(
    *, applets: bytes = b"\0[\0[[\0ash\0busybox\0sh\0yes\0\0", interpreter: bool = False, machine: int = 0xB7
) -> bytes:
    """As much of a static arm64 busybox as is looked at."""
    elf = bytearray(64 + 56)
    elf[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<H", elf, 18, machine)
    struct.pack_into("<Q", elf, 32, 64)
    struct.pack_into("<HH", elf, 54, 56, 1)
    struct.pack_into("<I", elf, 64, 3 if interpreter else 1)
    return bytes(elf) + b"some code" + applets


def build(**options: object) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    arguments = {"command": None, "nonce": "abc123"} | options
    return entries(initramfs.build(busybox(), **arguments))  # type: ignore[arg-type]


def test_what_the_kernel_and_init_need_is_there() -> None:
    found = build()
    mode, data, _ = found["init"]
    assert stat.S_ISREG(mode)
    assert mode & 0o111
    assert data.startswith(b"#!/bin/busybox sh\n")
    assert found["bin/busybox"][:2] == (stat.S_IFREG | 0o755, busybox())
    assert found["dev/console"][0] == stat.S_IFCHR | 0o600
    assert found["dev/console"][2] == (5, 1)
    assert found["qemu-sdei/nonce"][1] == b"abc123\n"
    assert "qemu-sdei/command" not in found
    for name in ("proc", "sys", "dev", "tmp", "run", "root", "bin"):
        assert stat.S_ISDIR(found[name][0])


def test_every_directory_comes_before_what_is_in_it() -> None:
    paths = list(build(extra_files={"lib/modules/a.ko": b"x"}))
    for path in paths:
        for depth in range(1, path.count("/") + 1):
            assert paths.index("/".join(path.split("/")[:depth])) < paths.index(path)


def test_there_is_a_link_for_every_applet_and_none_over_busybox_itself() -> None:
    found = build()
    for name in ("[", "[[", "ash", "sh", "yes"):
        assert found[f"bin/{name}"][:2] == (stat.S_IFLNK | 0o777, b"busybox")
    assert stat.S_ISREG(found["bin/busybox"][0])


@given(st.binary(max_size=300))
def test_applet_names_from_hostile_bytes_are_names(data: bytes) -> None:
    for name in initramfs.applets(b"\0[\0[[\0" + data):
        assert "/" not in name
        assert name.isascii()
        assert 0 < len(name) <= 32


def test_one_word_is_a_script_and_several_are_a_program_with_arguments() -> None:
    assert build(command=["echo a; exit 3"])["qemu-sdei/command"][1] == b"echo a; exit 3\n"
    assert build(command=["echo", "a; b", "$HOME"])["qemu-sdei/command"][1] == b"echo 'a; b' '$HOME'\n"


@pytest.mark.parametrize("command", [[], [""], ["  \n"], ["a\0b"]])
def test_a_command_that_is_none_is_refused(command: list[str]) -> None:
    with pytest.raises(UsageError, match="command"):
        build(command=command)


def test_extra_files_have_their_contents_and_modes() -> None:
    found = build(extra_files={"/lib/a.ko": b"module", "root/run": (b"#!/bin/sh\n", 0o755)})
    assert found["lib/a.ko"][:2] == (stat.S_IFREG | 0o644, b"module")
    assert found["root/run"][:2] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n")


@pytest.mark.parametrize("path", ["", "/", "../x", "a/../../x", "a\0b", "bin/busybox/x"])
def test_extra_files_at_impossible_paths_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match="initramfs"):
        build(extra_files={path: b""})


@pytest.mark.parametrize("nonce", ["", "a b", "x" * 65, "a\x1e", "ü"])
def test_a_nonce_that_would_break_the_markers_is_a_bug_of_the_caller(nonce: str) -> None:
    with pytest.raises(ValueError, match="nonce"):
        build(nonce=nonce)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"#!/bin/sh\n", "a script"),
        (busybox(machine=0x3E), "x86-64"),
        (busybox(interpreter=True), "shared libraries"),
        (b"\x7fELF\x02\x01" + bytes(10), "ELF"),
    ],
)
def test_a_busybox_that_cannot_run_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        initramfs.build(data, command=None, nonce="abc")


@given(st.binary(max_size=200))
def test_any_elf_is_taken_or_refused(data: bytes) -> None:
    try:
        initramfs.check_busybox(b"\x7fELF\x02\x01" + data)
    except UsageError:
        pass


@given(st.dictionaries(PATHS, st.binary(max_size=50), max_size=8))
def test_archives_hold_what_was_put_in_and_are_the_same_every_time(files: dict[str, bytes]) -> None:
    nodes = [cpio.file(path, data) for path, data in files.items()]
    try:
        archive = cpio.archive(nodes)
    except UsageError:  # one path below a file of the same name, or only dots
        return
    found = entries(archive)
    # "a", "a/." and "a//" name one file: the last one given stays.
    wanted = {str(PurePosixPath(path)).lstrip("/"): data for path, data in files.items()}
    assert {path: found[path][1] for path in wanted} == wanted
    assert archive == cpio.archive(nodes)
