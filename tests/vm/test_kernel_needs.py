"""What a kernel lacks is said before the boot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.host import given_kernels
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.host.kernel_config import KernelConfig
from qemu_sdei.host.progress import no_progress
from qemu_sdei.vm import linux_kernel
from qemu_sdei.vm.kernel_needs import check
from qemu_sdei.vm.options import GuestOptions
from tests.host.packages import CONFIG, RELEASE, module, tree


def told(
    options: GuestOptions, more: str = "", *, modules: tuple[str, ...] | None = None, own: bool = True
) -> list[str]:
    return check(options, KernelConfig.parse(CONFIG + more, "config-x"), own_initramfs=own, modules=modules)


VIRTIO = "CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_BLK=m\n"


def test_a_kernel_with_all_that_was_asked() -> None:
    assert told(GuestOptions()) == []
    assert told(GuestOptions(drives=["x"]), VIRTIO, modules=("virtio_blk",)) == []
    assert told(GuestOptions(drives=["x"]), VIRTIO, own=False) == []  # the user's own initrd may load it


@pytest.mark.parametrize(
    ("options", "more", "what"),
    [
        (GuestOptions(drives=["x"]), VIRTIO, r"--drive needs the kernel's module virtio_blk .*: give .* --modules DIR"),
        (GuestOptions(drives=["x"]), "", r"--drive needs a kernel with CONFIG_VIRTIO_PCI, which config-x does not set"),
        (GuestOptions(net=True), "CONFIG_VIRTIO_PCI=y\n", "CONFIG_VIRTIO_NET"),
        (GuestOptions(shares=["x"]), "CONFIG_VIRTIO_PCI=y\nCONFIG_9P_FS=y\n", "CONFIG_NET_9P_VIRTIO"),
        (GuestOptions(boot="acpi"), "", "a boot by ACPI needs a kernel with CONFIG_ACPI,"),
        (GuestOptions(ras=True), "CONFIG_ACPI=y\n", "CONFIG_ACPI_APEI_GHES, .*it reads no hardware error"),
        (GuestOptions(kdump=True), "", "CONFIG_KEXEC"),
        (GuestOptions(client=True), "CONFIG_MODULES=y\n", "CONFIG_KPROBES"),
    ],
)
def test_what_is_missing(options: GuestOptions, more: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as error:
        told(options, more)
    assert "\n" not in str(error.value)


def test_a_kernel_without_sdei_is_told_and_boots() -> None:
    config = KernelConfig.parse(CONFIG.replace("CONFIG_ARM_SDE_INTERFACE=y", ""), "config-x")
    found = check(GuestOptions(), config, own_initramfs=True, modules=None)
    assert len(found) == 1
    assert "CONFIG_ARM_SDE_INTERFACE" in found[0]
    assert check(GuestOptions(sdei=False), config, own_initramfs=True, modules=None) == []


# ---- with what was given


def find(options: GuestOptions, made: Path, tmp_path: Path) -> linux_kernel.LinuxKernel:
    given = given_kernels.find(made)
    cache = cast(DebianCache, type("Cache", (), {"directory": tmp_path / "cache"})())
    return linux_kernel.find(options, given, cache, drivers=True, progress=no_progress)


def test_the_modules_of_a_build_tree_serve_its_disks(tmp_path: Path) -> None:
    made = tree(tmp_path / "linux", config=CONFIG + VIRTIO)
    assert find(GuestOptions(drives=["x"]), made, tmp_path).drivers == made
    (made / "modules.order").write_text("")
    with pytest.raises(UsageError, match="--modules DIR"):
        find(GuestOptions(drives=["x"]), made, tmp_path)
    installed = tmp_path / "installed/lib/modules/x/kernel/virtio_blk.ko"
    installed.parent.mkdir(parents=True)
    installed.write_bytes(module("virtio_blk"))
    options = GuestOptions(drives=["x"], modules=tmp_path / "installed")
    assert find(options, made, tmp_path).drivers == tmp_path / "installed"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"modules": "/nonexistent"}, "there is no such directory"),
        ({"modules": "/proc/self/fdinfo"}, "no kernel module"),
        ({"modules": "/etc", "initrd": "/bin/sh"}, "leave out --initrd"),
    ],
)
def test_modules_that_cannot_be(change: dict[str, Any], what: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=what):
        find(replace(GuestOptions(), **change), tree(tmp_path / "linux"), tmp_path)


def test_a_client_module_of_another_kernel_is_refused(tmp_path: Path) -> None:
    made = tree(tmp_path / "linux", config=f"{CONFIG}CONFIG_MODULES=y\nCONFIG_KPROBES=y\n")
    client = tmp_path / "sdei_test.ko"
    client.write_bytes(b"\x7fELF\0vermagic=6.1.0-9-arm64 SMP mod_unload aarch64\0")
    with pytest.raises(UsageError, match=rf"is built for kernel 6\.1\.0-9-arm64, and this is {RELEASE}"):
        find(GuestOptions(client=client), made, tmp_path)
    client.write_bytes(f"\x7fELF\0vermagic={RELEASE} SMP mod_unload aarch64\0".encode())
    assert find(GuestOptions(client=client), made, tmp_path).image == made / "arch/arm64/boot/Image"
    client.write_bytes(b"nothing")
    with pytest.raises(UsageError, match="not a kernel module"):
        find(GuestOptions(client=client), made, tmp_path)
