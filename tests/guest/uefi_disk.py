"""A disk that UEFI boots, made of Debian's packages without root: GRUB as Debian signs it, a kernel, our initramfs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from qemu_sdei.host.debian import DebianCache
from qemu_sdei.host.unpack import extract
from tests.uefi.images import LINUX, MIB, SECTOR, SYSTEM, write_gpt

_MEGABYTES = 160
TOOLS = ("mformat", "mmd", "mcopy")
GRUB_CFG = """set timeout=0
menuentry debian {
    linux /vmlinuz console=ttyAMA0 panic=-1 %s
    initrd /initrd.img
}
"""


def missing() -> list[str]:
    """Programs that are needed and not here."""
    return [name for name in TOOLS if shutil.which(name) is None]


def grub(cache: DebianCache, work: Path) -> Path:
    """Debian's GRUB for arm64, signed."""
    deb = cache.package("grub-efi-arm64-signed")
    name = "grubaa64.efi.signed"
    return extract(deb, re.compile(rf"\./usr/lib/grub/arm64-efi-signed/({re.escape(name)})"), work, last=name)[
        name
    ].path


def fill_system_partition(image: Path, offset: int, megabytes: int, files: dict[str, Path]) -> None:
    """Make a FAT file system at an offset of an image, with these files in it: path there -> file here."""
    where = f"{image}@@{offset}"

    def run(*command: str) -> None:
        subprocess.run(command, check=True, timeout=60, capture_output=True)

    run("mformat", "-i", where, "-F", "-T", str(megabytes * MIB // SECTOR), "-v", "EFI", "::")
    made = set()
    for path, file in files.items():
        for parent in reversed(Path(path).parents[:-1]):
            if parent not in made:
                made.add(parent)
                run("mmd", "-i", where, f"::{parent}")
        run("mcopy", "-i", where, str(file), f"::{path}")


def make(work: Path, image: Path, initrd: Path, *, append: str = "", root: Path | None = None) -> None:
    """Make the disk `image` with an EFI system partition in it, from which Debian's kernel boots. `root`: a file system
    that the second partition is to have.
    """
    cache = DebianCache()
    config = work / "grub.cfg"
    config.write_text(GRUB_CFG % append)
    partitions = [(SYSTEM, _MEGABYTES)]
    if root is not None:
        partitions.append((LINUX, -(-root.stat().st_size // MIB)))
    offset, *others = write_gpt(image, partitions)
    files = {
        "EFI/BOOT/BOOTAA64.EFI": grub(cache, work),
        "EFI/debian/grub.cfg": config,
        "vmlinuz": cache.kernel("6.1").image,
        "initrd.img": initrd,
    }
    fill_system_partition(image, offset, _MEGABYTES, files)
    if root is not None:
        command = ["dd", f"if={root}", f"of={image}", "bs=1M", f"seek={others[0] // MIB}", "conv=notrunc,sparse"]
        subprocess.run(command, check=True, timeout=120, capture_output=True)
