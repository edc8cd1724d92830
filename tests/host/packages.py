"""Small Debian packages of kernels, and build trees, to test with."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from tests.boot.kernels import arm64_image

CONFIG = "CONFIG_ARM64=y\nCONFIG_BLK_DEV_INITRD=y\nCONFIG_SERIAL_AMBA_PL011_CONSOLE=y\nCONFIG_ARM_SDE_INTERFACE=y\n"
RELEASE = "6.99.0-test"


def image(release: str = RELEASE) -> bytes:
    """A kernel that says which one it is."""
    banner = f"Linux version {release} (nobody@nowhere)\0".encode()
    data = bytearray(arm64_image(100_000))
    data[5000 : 5000 + len(banner)] = banner
    return bytes(data)


def module(name: str, depends: str = "") -> bytes:
    """A kernel module, as far as anybody looks at it here."""
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=" + name.encode() + b"\0"


def build(folder: Path, name: str, files: dict[str, bytes], *, arch: str = "arm64", depends: str = "") -> Path:
    """A package by dpkg-deb, as `folder`/NAME_1.0_ARCH.deb."""
    tree = folder / f"tree-{name}"
    for path, data in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1.0\nArchitecture: {arch}\nMaintainer: nobody <a@b>\n"
    control += f"Depends: {depends}\n" if depends else ""
    (tree / "DEBIAN/control").write_text(f"{control}Description: test\n")
    deb = folder / f"{name}_1.0_{arch}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(deb)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return deb


def forged(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """A package whose archive has `members` as they are: what dpkg-deb would never write."""

    def tar(found: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for info, data in found:
                archive.addfile(info, io.BytesIO(data))
        return out.getvalue()

    control = b"Package: linux-image-x\nVersion: 1.0\nArchitecture: arm64\nMaintainer: n <a@b>\nDescription: test\n"
    info = tarfile.TarInfo("./control")
    info.size = len(control)
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": tar([(info, control)]), "data.tar.gz": tar(members)}
    data = b"!<arch>\n"
    for name, content in parts.items():
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    path.write_bytes(data)
    return path


def tree(path: Path, *, release: str = RELEASE, config: str = CONFIG) -> Path:
    """A build tree with an Image."""
    for name, data in {
        "arch/arm64/boot/Image": image(release),
        ".config": config.encode(),
        "Makefile": b"modules:\n",
        "include/generated/utsrelease.h": f'#define UTS_RELEASE "{release}"\n'.encode(),
        "vmlinux": b"\x7fELF",
        "drivers/block/virtio_blk.ko": module("virtio_blk", "virtio"),
        "drivers/virtio/virtio.ko": module("virtio"),
        "modules.order": b"drivers/block/virtio_blk.o\ndrivers/virtio/virtio.o\ndrivers/gone.o\n",
    }.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path
