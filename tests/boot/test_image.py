"""Which files are kernels, and what is said of those that are none."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qemu_sdei.boot import image
from qemu_sdei.boot.image import KernelImage, describe
from qemu_sdei.errors import UsageError
from tests.boot.kernels import MIB, arm64_image, zboot

NEEDS_ZSTD = pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd here")


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True, timeout=60).stdout


def load(tmp_path: Path, data: bytes) -> KernelImage:
    path = tmp_path / "kernel"
    path.write_bytes(data)
    return KernelImage.load(path)


def refusal(tmp_path: Path, data: bytes) -> str:
    """The one line that the user gets for a file that is refused."""
    with pytest.raises(UsageError) as error:
        load(tmp_path, data)
    text = str(error.value)
    assert "\n" not in text
    assert str(tmp_path / "kernel") in text
    return text


def test_image(tmp_path: Path) -> None:
    data = arm64_image(5000, text_offset=0x8_0000, image_size=123456)
    kernel = load(tmp_path, data)
    assert kernel.data == data
    assert (kernel.text_offset, kernel.image_size, kernel.flags) == (0x8_0000, 123456, 0xA)


def test_an_appended_signature_never_makes_the_copy_larger_than_the_reservation(tmp_path: Path) -> None:
    assert load(tmp_path, arm64_image(5000, image_size=4096)).image_size == 5000


def test_kernels_before_3_17_do_not_say_their_size(tmp_path: Path) -> None:
    kernel = load(tmp_path, arm64_image(5000, image_size=0))
    assert kernel.text_offset == 0x8_0000
    assert kernel.image_size > 5000


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        lambda data: zboot(gzip.compress(data), b"gzip"),
        lambda data: zboot(lzma.compress(data) + len(data).to_bytes(4, "little"), b"xzkern"),
        lambda data: zboot(lzma.compress(data, lzma.FORMAT_ALONE) + len(data).to_bytes(4, "little"), b"lzma"),
        lzma.compress,
        lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
        bz2.compress,
        pytest.param(zstd, marks=NEEDS_ZSTD),
        pytest.param(lambda data: zboot(zstd(data) + len(data).to_bytes(4, "little"), b"zstd22"), marks=NEEDS_ZSTD),
    ],
    ids=[
        "Image.gz",
        "zboot gzip",
        "zboot xz",
        "zboot lzma",
        "Image.xz",
        "Image.lzma",
        "Image.bz2",
        "Image.zst",
        "zboot zstd",
    ],
)
def test_compressed_kernels_are_the_image_inside(pack: object, tmp_path: Path) -> None:
    data = arm64_image()
    assert callable(pack)
    assert load(tmp_path, pack(data)) == load(tmp_path, data)


@pytest.mark.parametrize(("flags", "size"), [(0, None), (2, 4096), (4, 16384), (6, 65536), (0xA, 4096)])
def test_the_header_says_the_page_size(flags: int, size: int | None, tmp_path: Path) -> None:
    assert load(tmp_path, arm64_image(flags=flags)).page_size == size


ELF = b"\x7fELF\x02\x01".ljust(18, b"\0")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (ELF + b"\xb7\0", "ELF file for AArch64"),
        (ELF + b"\x3e\0", "ELF file for x86-64"),
        (ELF + b"\xff\x7f", "ELF file for machine 32767"),
        (b"MZ".ljust(0x202, b"\0") + b"HdrS", "x86 kernel (bzImage)"),
        (bytes(0x24) + b"\x18\x28\x6f\x01", "32-bit Arm kernel (zImage)"),
        (b"\xd0\x0d\xfe\xed", "flattened device tree (a FIT image or a DTB)"),
        (b"\x27\x05\x19\x56", "U-Boot image"),
        (b"MZ", "unified kernel image"),
        (b"070701", "cpio archive"),
        (b"!<arch>\ndebian-binary", "Debian package"),
        (b"#!/bin/sh\n", "script"),
        (b"hello world, how are you\n", "text file"),
        (b"\1\2\3\4", "unknown kind"),
    ],
)
def test_what_is_no_kernel_is_called_by_its_name(data: bytes, name: str, tmp_path: Path) -> None:
    text = refusal(tmp_path, data.ljust(0x400, b"\0") if not data.endswith(b"\n") else data * 20)
    assert name in text
    assert "give an arm64 Image" in text or "give the Image that was built with it" in text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (arm64_image()[:40], "too short"),
        (arm64_image(flags=0xB), "big-endian"),
        (arm64_image(text_offset=2 * MIB), "text_offset 0x200000"),
        (arm64_image(text_offset=0x801), "text_offset 0x801"),
        (arm64_image(image_size=1 << 40), "image_size 0x10000000000"),
        (gzip.compress(arm64_image(), mtime=0)[:-2000], "cut short"),
        (b"\x1f\x8b\x08" + bytes(100), "damaged"),
        (gzip.compress(b"no kernel at all" * 100, mtime=0), "text file"),
        (zboot(b"x", b"gzip")[:0x30], "cut short"),
        (zboot(b"x" * 100, b"gzip"), "damaged"),
        (zboot(b"x" * 100, b"gzip", size=1 << 31), "outside of the file"),
        (zboot(b"x" * 100, b"gzip", offset=1 << 31), "outside of the file"),
        (zboot(b"x" * 100, b"gzip", machine=0x8664), "not for arm64"),
        (zboot(b"x" * 100, b"lzo"), "compressed with 'lzo'"),
        (zboot(b"x" * 100, b"xzkern"), "damaged"),
    ],
)
def test_damaged_kernels_are_refused_with_a_reason(data: bytes, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, data)


@NEEDS_ZSTD
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-100], "cut short"),
        (lambda data: data[:9], "cut short"),
        (lambda data: data[:3000] + bytes(500) + data[3500:], "damaged"),
        (lambda data: data[:4] + b"\xff" + data[5:], "damaged|cut short"),
    ],
)
def test_a_damaged_zstd_kernel_is_refused_in_one_line(
    damage: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    text = refusal(tmp_path, damage(zstd(os.urandom(100_000))))
    assert re.search(message, text)
    assert "\n" not in text


def test_without_zstd_the_user_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = b"\x28\xb5\x2f\xfd\x20\x01\x09\x00\x00x"  # one raw block of one byte
    monkeypatch.setenv("PATH", str(tmp_path))
    text = refusal(tmp_path, zboot(frame, b"zstd22"))
    assert "apt-get install zstd" in text or "too short" in text  # before and since Python 3.14


def test_a_vmlinux_names_the_image_beside_it(tmp_path: Path) -> None:
    vmlinux = ELF + b"\xb7\0" + bytes(1000)
    assert "make Image" in refusal(tmp_path, vmlinux)
    image = tmp_path / "arch/arm64/boot/Image"
    image.parent.mkdir(parents=True)
    image.write_bytes(arm64_image())
    assert f"give {image}, or the build tree {tmp_path}" in refusal(tmp_path, vmlinux)


def test_a_small_file_that_inflates_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "MAX_FILE", MIB)
    assert "become 1 MiB or more" in refusal(tmp_path, gzip.compress(bytes(3 * MIB)))


@pytest.mark.parametrize("form", ["gzip", "zboot-gzip", "zboot-xzkern", pytest.param("zboot-zstd22", marks=NEEDS_ZSTD)])
def test_a_bomb_takes_no_more_memory_than_a_kernel(form: str, tmp_path: Path) -> None:
    """One that says that it is a kernel of 1 GiB, and whose zeroes have been compressed a thousand times."""
    head = bytearray(64)
    head[16:24] = (1 << 30).to_bytes(8, "little")
    head[56:60] = b"ARMd"
    bomb = bytes(head) + bytes(96 * MIB)
    packed = {"xzkern": lambda: lzma.compress(bomb, preset=0), "zstd22": lambda: zstd(bomb)}
    data = packed.get(form.rpartition("-")[2], lambda: gzip.compress(bomb, 1))()
    if form.startswith("zboot"):
        data = zboot(data, form.removeprefix("zboot-").encode())
    tracemalloc.start()
    try:
        assert "become 64 MiB or more: damaged?" in refusal(tmp_path, data)
        assert tracemalloc.get_traced_memory()[1] < 160 * MIB
    finally:
        tracemalloc.stop()


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    def message(path: str | Path) -> str:
        with pytest.raises(UsageError) as error:
            KernelImage.load(path)
        return str(error.value)

    assert "no such file" in message(tmp_path / "missing")
    assert "directory" in message(tmp_path)
    (tmp_path / "empty").touch()
    assert "empty" in message(tmp_path / "empty")
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in message(tmp_path / "fifo")
    assert "not a regular file" in message("/dev/zero")
    assert "not a directory" in message("/dev/null/x").lower()
    assert "a\0b" in message("a\0b")
    (tmp_path / "loop").symlink_to("loop")
    assert "symbolic links" in message(tmp_path / "loop")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.binary(max_size=600), st.sampled_from([b"", b"MZ\0\0zimg", b"\x1f\x8b\x08\0", b"\x7fELF"]))
def test_any_bytes_are_a_kernel_or_a_usage_error(tmp_path: Path, data: bytes, start: bytes) -> None:
    (tmp_path / "kernel").write_bytes(start + data + b"\0")
    try:
        KernelImage.load(tmp_path / "kernel")
    except UsageError:
        pass


@given(st.binary(max_size=600))
def test_everything_has_a_name(data: bytes) -> None:
    assert describe(data)
