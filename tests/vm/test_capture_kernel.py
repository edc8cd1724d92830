"""A capture kernel: how much is reserved for it, whether it fits, and which file its dump goes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.boot import capture
from qemu_sdei.boot.image import MIB, KernelImage
from qemu_sdei.errors import UsageError
from qemu_sdei.vm.capture_kernel import CaptureKernel, reserved, settled
from qemu_sdei.vm.devices import devices
from qemu_sdei.vm.options import GuestOptions
from tests.boot.kernels import arm64_image

GIB = 1 << 30


@pytest.mark.parametrize(
    ("asked", "ram", "found"),
    [(None, GIB, 512), (None, 4 * GIB, 512), (None, 300 * MIB, 150), ("256M", GIB, 256), ("1G", 4 * GIB, 1024)],
)
def test_how_much_is_reserved(asked: str | None, ram: int, found: int) -> None:
    assert reserved(GuestOptions(kdump=True, crashkernel=asked), ram) == found * MIB


@pytest.mark.parametrize("asked", ["63M", "x", "1023M", "2G", "", "70000K", "-1M"])
def test_what_cannot_be_reserved(asked: str) -> None:
    with pytest.raises(UsageError, match="--crashkernel"):
        reserved(GuestOptions(kdump=True, crashkernel=asked), GIB)


def test_one_that_does_not_fit_is_told_what_would() -> None:
    kernel = KernelImage(b"", 0, 40 * MIB, 0, "k")
    capture.check_fit(kernel, 4 * MIB, 96 * MIB)
    with pytest.raises(UsageError, match=r"needs 79 MiB, and 64 MiB are reserved for it: use --crashkernel 96M"):
        capture.check_fit(kernel, 4 * MIB, 64 * MIB)


def test_the_kernel_that_is_to_crash_needs_memory_too(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(arm64_image(image_size=40 * MIB))
    found = CaptureKernel(path, 512 * MIB, "")
    found.check_first(str(path), 50 * MIB, GIB)
    with pytest.raises(UsageError, match="use more --memory, or less --crashkernel"):
        found.check_first(str(path), 50 * MIB, 700 * MIB)


def test_a_dump_takes_a_free_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vmcore").touch()
    (tmp_path / "vmcore-2.part").touch()
    assert settled(GuestOptions(kdump=True), False).vmcore == tmp_path / "vmcore-3"
    assert settled(GuestOptions(), False) == GuestOptions()
    # One that is named may be there, unless somebody writes it.
    assert settled(GuestOptions(kdump=True, vmcore="vmcore"), False).vmcore == tmp_path / "vmcore"
    with pytest.raises(UsageError, match=r"vmcore-2.part is there, which another guest may be writing"):
        settled(GuestOptions(kdump=True, vmcore="vmcore-2"), False)


def test_the_disk_for_it_is_as_large_as_memory_and_goes_away(tmp_path: Path) -> None:
    found = devices(GuestOptions(kdump=True, vmcore=tmp_path / "a,b"))
    part = tmp_path / "a,b.part"
    assert found.vmcore == part
    assert f"if=none,id=vmcore,format=raw,cache=unsafe,werror=report,file={tmp_path}/a,,b.part" in found.arguments
    assert not found.seen  # the kernel that crashes needs no driver for it
    found.create(GIB)
    assert part.stat().st_size == GIB + 64 * MIB
    assert part.stat().st_blocks == 0
    with pytest.raises(UsageError, match="File exists"):  # somebody else's
        found.create(GIB)
    found.discard()
    found.discard()
    assert not part.exists()


def test_what_the_first_kernel_carries(tmp_path: Path) -> None:
    kernel = KernelImage(b"kernel", 0, 40 * MIB, 0, "k")
    files = capture.files(kernel, b"initrd", "console=x")
    assert files["qemu-sdei/kdump/Image"] == (b"kernel", 0o644)
    assert files["qemu-sdei/kdump/cmdline"] == (b"console=x", 0o644)
    program, mode = files["qemu-sdei/kdump/kdump"]
    assert program[:4] == b"\x7fELF"
    assert mode == 0o755
