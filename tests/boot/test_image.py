"""Which files are kernels, and what is said of those that are none."""

from __future__ import annotations

import gzip
import lzma
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qemu_sdei.boot import image
from qemu_sdei.boot.image import KernelImage, describe
from qemu_sdei.errors import UsageError
from tests.boot.kernels import MIB, arm64_image, zboot


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
    ],
    ids=["Image.gz", "zboot gzip", "zboot xz", "zboot lzma"],
)
def test_compressed_kernels_are_the_image_inside(pack: object, tmp_path: Path) -> None:
    data = arm64_image()
    assert callable(pack)
    assert load(tmp_path, pack(data)) == load(tmp_path, data)


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
        (b"\xfd7zXZ\0", "xz-compressed"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
        (b"!<arch>\ndebian-binary", "Debian package"),
        (b"#!/bin/sh\n", "script"),
        (b"hello world, how are you\n", "text file"),
        (b"\1\2\3\4", "unknown kind"),
    ],
)
def test_what_is_no_kernel_is_called_by_its_name(data: bytes, name: str, tmp_path: Path) -> None:
    text = refusal(tmp_path, data.ljust(0x400, b"\0") if not data.endswith(b"\n") else data * 20)
    assert name in text
    assert "give an arm64 Image" in text


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


def test_zstd_is_read_or_refused_with_a_reason(tmp_path: Path) -> None:
    text = refusal(tmp_path, zboot(b"x" * 100, b"zstd22"))
    assert "compressed with zstd" in text or "damaged" in text  # before and since Python 3.14


def test_a_small_file_that_inflates_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "MAX_FILE", MIB)
    assert "become 1 MiB or more" in refusal(tmp_path, gzip.compress(bytes(3 * MIB)))


@pytest.mark.parametrize("form", ["gzip", "zboot-gzip", "zboot-xzkern"])
def test_a_bomb_takes_no_more_memory_than_a_kernel(form: str, tmp_path: Path) -> None:
    """One that says that it is a kernel of 1 GiB, and whose zeroes have been compressed a thousand times."""
    head = bytearray(64)
    head[16:24] = (1 << 30).to_bytes(8, "little")
    head[56:60] = b"ARMd"
    bomb = bytes(head) + bytes(96 * MIB)
    data = lzma.compress(bomb, preset=0) if form.endswith("xzkern") else gzip.compress(bomb, 1)
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
